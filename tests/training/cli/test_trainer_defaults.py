from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace
from pytorch_lightning.callbacks import EarlyStopping, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger

from dubio.training.callbacks.averaged_weights import AveragedWeights
from dubio.training.callbacks.epoch_lines import EpochLines
from dubio.training.callbacks.monitored_metrics import MonitoredMetrics
from dubio.training.callbacks.processes import Processes
from dubio.training.callbacks.resumption import Resumption
from dubio.training.cli import trainer_defaults

OPEN = {
    "default_root_dir": None,
    "logger": None,
    "fast_dev_run": False,
    "callbacks": None,
    "enable_progress_bar": None,
}


def of(command: str, folder: Path, **given: Any) -> dict[str, Any]:
    return trainer_defaults.of(Namespace(**{**OPEN, **given}), command, folder)


def kinds(arguments: dict[str, Any]) -> list[type]:
    return [type(each) for each in arguments["callbacks"]]


def test_a_fit_logs_and_writes_into_the_folder_of_its_run(tmp_path: Path):
    arguments = of("fit", tmp_path)
    assert arguments["default_root_dir"] == str(tmp_path)
    assert isinstance(arguments["logger"], CSVLogger)
    assert Path(arguments["logger"].log_dir).parent == tmp_path / "logs"
    # A test's output is no terminal, so there is a line an epoch and no bar.
    assert kinds(arguments) == [EpochLines, AveragedWeights, MonitoredMetrics, Resumption, Processes]


@pytest.mark.parametrize(("command", "trial"), [("test", False), ("calibrate", False), ("fit", True)])
def test_what_leaves_no_run_logs_nothing(command: str, trial: bool, tmp_path: Path):
    assert of(command, tmp_path, fast_dev_run=trial)["logger"] is False
    assert (Resumption in kinds(of(command, tmp_path))) == (command == "fit")


def test_what_was_given_stays(tmp_path: Path):
    arguments = of("fit", tmp_path, default_root_dir="here", logger=False)
    assert "default_root_dir" not in arguments
    assert "logger" not in arguments
    own = EarlyStopping("val_loss")
    assert of("fit", tmp_path, callbacks=own)["callbacks"][0] is own
    assert kinds(of("test", tmp_path, callbacks=[TQDMProgressBar()])) == [TQDMProgressBar]
    assert kinds(of("test", tmp_path, enable_progress_bar=False)) == []
