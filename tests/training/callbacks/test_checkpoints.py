from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from dubio.models import load
from tests import table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint.save_top_k", "0"], "Expected `checkpoint.save_top_k` to be 1 or more"),
        (["--checkpoint.every_n_epochs", "3"], "`trainer.max_epochs` to be at least 3"),
        (["--trainer.check_val_every_n_epoch", "3"], "`trainer.max_epochs` to be at least 3"),
        (
            ["--trainer.check_val_every_n_epoch", "2", "--checkpoint.every_n_epochs", "3", "--trainer.max_epochs", "5"],
            "`trainer.max_epochs` to be at least 6",
        ),
        (["--trainer.max_epochs", "0"], "`trainer.max_epochs` to be at least 1"),
        (["--trainer.limit_train_batches", "0"], "Expected `trainer.limit_train_batches` to be positive"),
        (["--trainer.limit_val_batches", "0"], "Expected `trainer.limit_val_batches` to be positive"),
    ],
)
def test_settings_that_would_leave_nothing_to_serve_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    assert message in table.refused(capsys, tmp_path, *arguments)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.max_steps", "5"], "at least 6 steps"),
        (["--trainer.max_steps", "2", "--trainer.val_check_interval", "0.5"], "at least 3 steps"),
        (["--trainer.max_steps", "8", "--trainer.check_val_every_n_epoch", "2"], "at least 12 steps"),
        (["--trainer.accumulate_grad_batches", "4", "--trainer.max_steps", "1"], "at least 2 steps"),
        (["--checkpoint.every_n_train_steps", "13"], "at least 13 steps"),
    ],
)
def test_a_training_that_ends_too_early_is_refused_before_its_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    assert message in table.refused(capsys, tmp_path, *arguments)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "epoch"),
    [
        (["--checkpoint.monitor", "null"], 1),
        (["--checkpoint.monitor", "null", "--trainer.limit_val_batches", "0"], 1),
        (["--trainer.check_val_every_n_epoch", "2"], 1),
        (["--trainer.max_steps", "6"], 0),
        (["--trainer.max_steps", "5", "--trainer.val_check_interval", "0.5"], 0),
        (["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val_loss"], 1),
        (["--trainer.callbacks+=ModelCheckpoint"], 1),
    ],
)
def test_settings_that_leave_something_are_served(tmp_path: Path, arguments: list[str], epoch: int):
    run = table.fit(tmp_path, *arguments)
    assert table.content(run / "model.ckpt")["epoch"] == epoch
    assert load(run / "model.ckpt").detector is not None


def test_of_several_that_are_kept_the_best_is_served(tmp_path: Path):
    """A rate that is too high at first: the loss of some epochs is worse than that before."""
    rough = ["--model.optimizer.lr", "0.3", "--trainer.max_epochs", "6"]
    run = table.fit(tmp_path, "--checkpoint.save_top_k", "3", *rough)
    losses = table.metrics(run, "val_loss")
    best = losses.index(min(losses))
    assert best < len(losses) - 1
    assert table.content(run / "model.ckpt")["epoch"] == best
    kept = {table.content(path)["epoch"] for path in (run / "checkpoints").glob("best-*.ckpt")}
    assert kept == set(torch.tensor(losses).argsort()[:3].tolist())


@pytest.mark.parametrize("replaced", [True, False])
def test_a_best_epoch_whose_file_another_run_has_replaced_is_not_served(tmp_path: Path, replaced: bool):
    """Lightning would go by the name, and serve the other run's weights as the best of this one."""
    run = table.fit(tmp_path)
    source = str(shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "last.ckpt"))
    first = table.content(run / "checkpoints" / "best.ckpt")["state_dict"]
    if replaced:
        table.fit(tmp_path, "--model.optimizer.lr", "0.0001")
    # So high a rate only makes it worse.
    table.fit(tmp_path, "--ckpt_path", source, "--trainer.max_epochs", "3", "--model.optimizer.lr", "1")
    served = table.content(run / "model.ckpt")
    assert served["epoch"] == (2 if replaced else 1)
    assert served["state_dict"]["network.head.weight"].equal(first["network.head.weight"]) is not replaced


def test_a_fit_that_ends_without_a_checkpoint_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    time = ["--trainer.max_epochs", "-1", "--trainer.max_time", "00:00:00:00"]
    assert "let it run longer" in table.refused(capsys, tmp_path, *time)


def test_half_precision_that_diverges_is_not_told_to_lower_the_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    line = table.refused(capsys, tmp_path, "--trainer.precision", "16-true")
    assert "set `trainer.precision` to bf16-mixed or 32-true" in line
    assert "Lower" not in line
    for precision in ("bf16-mixed", "32-true"):
        table.fit(tmp_path, "--trainer.precision", precision, "--trainer.max_epochs", "1")


def test_a_rate_that_diverges_is_told_to_be_lowered(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    hot = ["--model.optimizer", "SGD", "--model.optimizer.lr", "1e30"]
    assert "Lower the learning rate" in table.refused(capsys, tmp_path, *hot)
