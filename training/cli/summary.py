"""What is said after a fit, a calibration and a test: figures, warnings, and what may be done next."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console

from dubio.models import Predictor, registry
from dubio.training import answer_promises, calibration, class_figures, evaluation
from dubio.training.calibration import CalibrationSettings
from dubio.training.cli.messages import note, warn
from dubio.training.data.file_module import FileDataModule
from dubio.training.data.module import TensorDataModule
from dubio.training.evaluation import Evaluation
from dubio.training.splits import duplicates


def say_caveats(data: TensorDataModule, settings: CalibrationSettings) -> None:
    """Warn of what weakens the figures and the promise: rows that are alike, the same, or few."""
    lowered = calibration.fewer_neighbours(data, settings)
    if lowered is not None:
        note(lowered)
    # Of several processes none has all training rows here; they tell together (`Processes`).
    repeated = duplicates.told(data.division) if data.share.count == 1 else None
    for caveat in (getattr(data, "caveat", None), repeated):
        if caveat is not None:
            warn(caveat)


def show(measured: Evaluation, data: TensorDataModule, path: Path, predictor: Predictor | None = None) -> None:
    """Print the figures of the test split, all together and by class.

    Args:
        measured: The figures.
        data: Names the classes.
        path: Of the checkpoint.
        predictor: That of the checkpoint, if it is calibrated.
    """
    console = Console()
    console.print(evaluation.table(measured, path, predictor))
    if measured.before:
        console.print(evaluation.quality_table(measured))
    console.print(class_figures.class_table(measured.by_class, data.classes))
    for caveat in answer_promises.caveats(predictor, data, path) if predictor else ():
        note(caveat)
    warning = class_figures.never_predicted(measured.by_class, data.classes)
    if warning is not None:
        warn(warning)


def say_next(predictor: Predictor, data: TensorDataModule, path: Path, run_folder: Path) -> None:
    """Print the commands that take a checkpoint further; each works as it stands.

    Args:
        predictor: That of the checkpoint.
        data: Of its fit or calibration.
        path: Of the checkpoint.
        run_folder: Of the run, with its configuration.
    """
    spec = predictor.network_spec
    trust = [] if spec.class_path in registry.NETWORKS else ["--trusted", spec.class_path.rpartition(".")[0]]
    commands = [["dubio-serve", *trust, str(path)]]
    config = run_folder / "config.yaml"
    if isinstance(data, FileDataModule) and config.is_file():
        own = [] if path == run_folder / "model.ckpt" else ["--ckpt_path", str(path)]
        commands.append(["dubio-train", "predict", "--config", str(config), *own, "--data.path", str(data.path)])
    for command in commands:  # not in a table and not wrapped, so that it can be copied
        Console().print(f"next: {shlex.join(command)}", soft_wrap=True, highlight=False, markup=False)
