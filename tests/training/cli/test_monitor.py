from __future__ import annotations

import importlib
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace

from dubio.training.cli import monitor
from tests import table

CALLBACK = """
from pytorch_lightning import Callback

class Watch(Callback):
    modes = []

    def __init__(self, monitor: str, mode: str = "min"):
        self.mode = mode

    def on_fit_start(self, trainer, pl_module):
        callbacks = {type(each).__name__: each.mode for each in trainer.callbacks if hasattr(each, "mode")}
        Watch.modes.append((callbacks, trainer.lr_scheduler_configs[0].scheduler.mode))
"""


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("val_loss", "min"), ("train_loss", "min"), ("val_accuracy", "max"), ("val_macro_f1", "max"), ("loss", None),
     ("val_time", None), ("accuracy", None), ("lr-AdamW", None)],
)  # fmt: skip
def test_the_name_of_a_metric_says_which_way_is_better(metric: str, mode: str | None):
    assert monitor.mode(metric) == mode


def test_the_epoch_with_the_largest_accuracy_is_served(tmp_path: Path):
    more = ["--checkpoint.monitor", "val_accuracy", "--trainer.max_epochs", "4", "--model.optimizer.lr", "0.003"]
    run = table.fit(tmp_path, *more)
    accuracies = table.metrics(run, "val_accuracy")
    assert max(accuracies) > accuracies[0]
    served = table.content(run / "model.ckpt")
    assert served["epoch"] == accuracies.index(max(accuracies))


def test_a_fit_that_watches_the_accuracy_goes_on_while_it_rises(tmp_path: Path):
    stop = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_accuracy"]
    more = ["--trainer.callbacks.patience=1", "--trainer.max_epochs", "4", "--model.optimizer.lr", "0.003"]
    accuracies = table.metrics(table.fit(tmp_path, *stop, *more), "val_accuracy")
    rising = [later > former for former, later in pairwise(accuracies)]
    assert rising[0]
    assert all(rising[:-1])


def test_every_callback_and_schedule_gets_the_metrics_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "watching.py").write_text(CALLBACK)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    callbacks = [
        f"--trainer.callbacks{part}"
        for name in ("watching.Watch", "EarlyStopping", "ModelCheckpoint")
        for part in (f"+={name}", ".monitor=val_accuracy")
    ]
    schedule = ["--model.scheduler", "pytorch_lightning.cli.ReduceLROnPlateau"]
    try:
        table.fit(tmp_path, "--trainer.fast_dev_run", "true", "--checkpoint.monitor", "val_accuracy", *callbacks,
                  *schedule, "--model.scheduler.monitor", "val_accuracy")  # fmt: skip
        ((modes, of_schedule),) = sys.modules["watching"].Watch.modes
    finally:
        sys.modules.pop("watching", None)
    assert of_schedule == "max"
    assert modes.pop("LastCheckpoint") == "min"  # which watches nothing
    assert modes == dict.fromkeys(["Watch", "EarlyStopping", "ModelCheckpoint", "BestCheckpoint"], "max")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint.monitor", "val_acc"], "`checkpoint.mode` beside `checkpoint.monitor: val_acc`"),
        (["--checkpoint.monitor", "val_acc"], "did you mean `val_accuracy`?"),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=gap"],
            "`trainer.callbacks[0].init_args.mode` beside",
        ),
        (
            ["--checkpoint.monitor", "val_accuracy", "--checkpoint.mode", "min"],
            "Expected `checkpoint.mode` to be `max` for the metric `val_accuracy`, but got 'min'",
        ),
        (["--checkpoint.mode", "max"], "Expected `checkpoint.mode` to be `min` for the metric `val_loss`"),
    ],
)
def test_a_direction_that_is_missing_or_wrong_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    assert message in table.refused(capsys, tmp_path, *arguments)
    assert not (tmp_path / "runs").exists()


def test_a_metric_of_ones_own_has_the_mode_that_is_given():
    config = Namespace(checkpoint=Namespace(monitor="val_time", mode="max"))
    monitor.settle(config, config.clone())
    assert config.checkpoint.mode == "max"


def test_weights_are_chosen_by_the_training_loss_that_they_have(tmp_path: Path):
    """Lightning would compare after the validation, when the loss is still that of the epoch before."""
    more = ["--checkpoint.monitor", "train_loss", "--trainer.check_val_every_n_epoch", "2"]
    run = table.fit(tmp_path, *more, "--trainer.max_epochs", "4")
    best = table.content(run / "checkpoints" / "best.ckpt")
    (state,) = (state for key, state in best["callbacks"].items() if key.startswith("BestCheckpoint"))
    losses = table.metrics(run, "train_loss")
    assert float(state["best_model_score"]) == pytest.approx(losses[best["epoch"]], abs=1e-6)
    assert torch.tensor(losses).argmin() == best["epoch"]
