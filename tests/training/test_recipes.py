"""What Lightning has for training, wired by configuration: it must reach the file that is calibrated and served."""

from __future__ import annotations

import csv
import importlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dubio.models import load
from dubio.training.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "configs" / "digits_mlp.yaml")
SMALL = ["--config", CONFIG, "--trainer.enable_progress_bar", "false", "--calibration.num_samples", "4"]
SMALL += ["--model.network.widths", "[32, 16]", "--model.network.rates", "[0.2, 0.2]"]
EMA = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.9"]
STEPS = 17  # of an epoch: 1078 rows in batches of 64

WITNESS = """
import torch
from pytorch_lightning import Callback

class Witness(Callback):
    average, averages, norms, rates = None, [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        weight = pl_module.network.head.weight.detach()
        own = Witness.average
        # The average begins with the weights after the first step.
        Witness.average = weight.clone() if own is None else 0.9 * own + 0.1 * weight

    def on_train_epoch_end(self, trainer, pl_module):
        Witness.averages.append(Witness.average)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        Witness.rates.append(optimizer.param_groups[0]["lr"])

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        grads = [each.grad.flatten() for each in pl_module.parameters() if each.grad is not None]
        if grads:
            Witness.norms.append(float(torch.cat(grads).norm()))
"""
WATCHED = ["--trainer.callbacks+=witness.Witness"]


@pytest.fixture
def witness(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module with a callback that keeps what it sees."""
    folder = tmp_path_factory.mktemp("witness")
    (folder / "witness.py").write_text(WITNESS)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    yield importlib.import_module("witness").Witness
    del sys.modules["witness"]


def fit(folder: Path, *more: str, epochs: int = 2) -> Path:
    """The folder of a finished run."""
    main(["fit", *SMALL, "--runs", str(folder), "--trainer.max_epochs", str(epochs), *more])
    return folder / "digits_mlp"


def head(path: Path) -> torch.Tensor:
    return torch.load(path, weights_only=True)["state_dict"]["network.head.weight"]


def test_averaged_weights_are_what_is_calibrated_and_served(tmp_path: Path, witness: ModuleType):
    run = fit(tmp_path, *EMA, *WATCHED, epochs=3)
    best = torch.load(run / "model.ckpt", weights_only=True)
    due = witness.averages[best["epoch"]]
    torch.testing.assert_close(load(run / "model.ckpt").network.head.weight, due)
    raw = best["current_model_state"]["network.head.weight"]
    assert float((raw - due).abs().max()) > 1e-3


@pytest.mark.slow
def test_an_averaged_run_goes_on_where_it_stopped(tmp_path: Path, witness: ModuleType):
    whole = fit(tmp_path / "whole", *EMA, "--model.scheduler", "null", epochs=2)
    first = fit(tmp_path / "halves", *EMA, "--model.scheduler", "null", epochs=1)
    before = torch.load(first / "checkpoints" / "last.ckpt", weights_only=True)
    source = tmp_path / "halfway.ckpt"
    torch.save(before, source)
    resumed = ["--ckpt_path", str(source), "--model.scheduler", "null"]
    fit(tmp_path / "halves", *EMA, *WATCHED, *resumed, epochs=2)
    after = torch.load(first / "checkpoints" / "last.ckpt", weights_only=True)
    assert after["global_step"] == 2 * before["global_step"] == 2 * STEPS
    assert after["averaging_state"]["n_averaged"] == 2 * STEPS
    assert set(after["current_model_state"]) == set(torch.load(whole / "model.ckpt", weights_only=True)["state_dict"])


def test_a_checkpoint_that_would_lack_the_average_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Lightning would put the raw weights into it."""
    with pytest.raises(SystemExit):
        fit(tmp_path, *EMA, "--checkpoint.save_weights_only", "true")
    assert "`checkpoint.save_weights_only` to be false" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.slow
def test_a_test_of_an_averaged_run_takes_the_average(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = fit(tmp_path, *EMA)
    main(["test", *SMALL, *EMA, "--runs", str(tmp_path)])
    assert "test_accuracy" in capsys.readouterr().out
    assert (run / "model.ckpt").is_file()


def test_a_fit_stops_when_the_loss_no_longer_falls(tmp_path: Path):
    never = ["--trainer.callbacks.min_delta=1e9", "--trainer.callbacks.patience=2"]
    run = fit(tmp_path, "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss", *never, epochs=50)
    # The first epoch is better than none; two that are no better follow.
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2
    assert load(run / "model.ckpt").detector is not None


def test_gradients_are_clipped(tmp_path: Path, witness: ModuleType):
    fit(tmp_path, *WATCHED, "--trainer.gradient_clip_val", "0.05", epochs=1)
    # Those of a step are seen just before the next one zeroes them.
    assert witness.norms == pytest.approx([0.05] * (STEPS - 1), rel=1e-3)


def test_the_rate_warms_up_and_falls_with_each_step(tmp_path: Path, witness: ModuleType):
    schedule = ["--model.scheduler", "dubio.training.WarmupCosine", "--model.scheduler.warmup", "0.25"]
    fit(tmp_path, *WATCHED, *schedule, "--model.optimizer.lr", "0.01")
    rising = int(0.25 * 2 * STEPS)
    due = [0.01 * (step + 1) / (rising + 1) for step in range(rising)]
    falling = 2 * STEPS - rising
    due += [0.01 * (1 + math.cos(math.pi * step / falling)) / 2 for step in range(falling)]
    assert witness.rates == pytest.approx(due)


@pytest.mark.parametrize("first", [True, False])
def test_no_unit_of_a_served_network_is_beyond_the_max_norm(tmp_path: Path, first: bool):
    norm = ["--trainer.callbacks+=dubio.training.MaxNorm", "--trainer.callbacks.c=0.6"]
    run = fit(tmp_path, *(norm + EMA if first else EMA + norm))
    for name, weight in load(run / "model.ckpt").network.named_parameters():
        if weight.ndim == 2:
            assert float(weight.norm(dim=1).max()) <= 0.6 * (1 + 1e-5), name


def test_half_the_precision_trains_and_the_file_is_in_full(tmp_path: Path):
    run = fit(tmp_path, "--trainer.precision", "bf16-mixed")
    assert {tensor.dtype for tensor in torch.load(run / "model.ckpt", weights_only=True)["state_dict"].values()} == {
        torch.float32
    }
    full = fit(tmp_path / "full")
    difference = float((head(run / "model.ckpt") - head(full / "model.ckpt")).abs().max())
    assert 0 < difference < 0.1


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
def test_another_precision_is_calibrated_and_loaded_in_it(tmp_path: Path, precision: str, dtype: torch.dtype):
    predictor = load(fit(tmp_path, "--trainer.precision", precision) / "model.ckpt")
    assert {parameter.dtype for parameter in predictor.network.parameters()} == {dtype}
    assert predictor.no_promise is None


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path):
    processes = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    command = [sys.executable, "-m", "dubio.training", "fit", *SMALL, "--runs", str(tmp_path), *processes]
    ran = subprocess.run(
        [*command, "--trainer.max_epochs", "4"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    run = tmp_path / "digits_mlp"
    # Each process takes half of the rows in batches of 64: 9 steps an epoch instead of 17.
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4 * 9
    (path,) = (run / "logs").glob("*/metrics.csv")
    with path.open() as file:
        losses = [float(row["val_loss"]) for row in csv.DictReader(file) if row["val_loss"]]
    assert losses[-1] < losses[0]
    assert load(run / "model.ckpt").detector is not None
