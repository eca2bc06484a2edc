"""What the trainer gets where the configuration leaves it open: where it writes, its log, and its callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ProgressBar, RichProgressBar
from pytorch_lightning.loggers import CSVLogger
from rich.console import Console

from dubio.training.callbacks.averaged_weights import AveragedWeights
from dubio.training.callbacks.epoch_lines import EpochLines
from dubio.training.callbacks.monitored_metrics import MonitoredMetrics
from dubio.training.callbacks.processes import Processes
from dubio.training.callbacks.resumption import Resumption
from dubio.training.cli.messages import warn

DRAWN_PER_SECOND = 4  # the progress bar


def of(settings: Any, command: str, run_folder: Path) -> dict[str, Any]:
    """Arguments of the trainer.

    Args:
        settings: The trainer's, as configured.
        command: What it is for: `fit`, `test`, ...
        run_folder: Of the run.
    """
    arguments: dict[str, Any] = {}
    if settings.default_root_dir is None:
        arguments["default_root_dir"] = str(run_folder)
    if settings.logger is None:
        # Testing needs no log, for Lightning prints the result; neither does a trial.
        logs = command == "fit" and not settings.fast_dev_run
        arguments["logger"] = CSVLogger(str(run_folder), name="logs") if logs else False
    callbacks = settings.callbacks or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    if settings.enable_progress_bar is not False and not any(isinstance(each, ProgressBar) for each in callbacks):
        # Lightning's own draws a hundred times a second, which takes a tenth of a core from the training.
        drawn = Console().is_terminal or Console().is_jupyter
        callbacks = [*callbacks, RichProgressBar(refresh_rate=DRAWN_PER_SECOND) if drawn else EpochLines()]
    if command == "fit":
        callbacks = [*callbacks, AveragedWeights(), MonitoredMetrics(), Resumption(), Processes(warn)]
    return {**arguments, "callbacks": callbacks}
