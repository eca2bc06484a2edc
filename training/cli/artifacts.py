"""What a fit leaves, sent to the loggers that keep files: MLflow and Weights & Biases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger, MLFlowLogger, WandbLogger

from dubio.training.classifier import Classifier
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import TrainingError
from dubio.training.evaluation import Evaluation

# Sections of the configuration that a run is found by later; that of the model Lightning sends by itself.
SECTIONS = ("data", "calibration")


def keep(
    trainer: Trainer,
    model: Classifier,
    data: TensorDataModule,
    config: Namespace,
    measured: Evaluation,
    servable: Path,
) -> None:
    """Give what a fit left to those of its loggers that keep files: parameters, figures, checkpoint and report.

    Args:
        trainer: Has the loggers.
        model: Of the checkpoint.
        data: Of the fit.
        config: Of the command.
        measured: On the test rows.
        servable: The checkpoint, beside which the configuration is.

    Raises:
        TrainingError: If a logger does not take it; the checkpoint is there all the same.
    """
    asked = keepers(trainer.loggers)
    if not asked:
        return
    paths = [servable, servable.parent / "config.yaml", report(servable, data, [type(model.network).__module__])]
    for logger in asked:
        try:
            logger.log_hyperparams(parameters(config))
            logger.log_metrics(dict(figures(measured)), step=trainer.global_step)
            send(logger, paths)
        except Exception as error:  # whatever their libraries and the network between have
            raise TrainingError(
                f"{servable}: is written, and can be served, but {type(logger).__name__} did not take it: {error}"
            ) from error


def keepers(loggers: Iterable[Logger]) -> list[MLFlowLogger | WandbLogger]:
    """The loggers that keep files."""
    return [each for each in loggers if isinstance(each, MLFlowLogger | WandbLogger)]


def send(logger: MLFlowLogger | WandbLogger, paths: Iterable[Path]) -> None:
    """Send files, and folders with the files in them.

    Args:
        logger: That keeps them.
        paths: On this machine.
    """
    for path in paths:
        if isinstance(logger, WandbLogger):
            kind = "model" if path.suffix == ".ckpt" else "report" if path.is_dir() else "config"
            logger.experiment.log_artifact(str(path), name=f"{logger.experiment.id}-{path.name}", type=kind)
        elif path.is_dir():
            logger.experiment.log_artifacts(logger.run_id, str(path), path.name)
        else:
            logger.experiment.log_artifact(logger.run_id, str(path))


def parameters(config: Namespace) -> dict[str, Any]:
    """What a run is found by, as plain data."""
    sections = {name: config.get(name) for name in SECTIONS}
    return {name: held.as_dict() if isinstance(held, Namespace) else held for name, held in sections.items()}


def figures(measured: Evaluation) -> Mapping[str, float]:
    """What was measured on the test rows, as the loggers name metrics."""
    found = {"test_accuracy": measured.deterministic.accuracy, "test_nll": measured.deterministic.nll}
    if measured.mc is not None:
        found |= {"test_mc_accuracy": measured.mc.accuracy, "test_mc_nll": measured.mc.nll}
    if measured.flagged is not None:
        found["test_flagged"] = measured.flagged / max(measured.rows, 1)
    return found


def report(path: Path, data: TensorDataModule, trusted: list[str]) -> Path:
    """Write the report of a checkpoint beside it, as `dubio-train report` does, and give its folder.

    Args:
        path: Of the checkpoint.
        data: Of its fit.
        trusted: Modules whose classes it names.
    """
    from dubio.training.report import build  # which draws, and no other fit does

    folder = path.parent / f"{path.stem}_report"
    day = datetime.now(UTC).date()
    build.build(build.reproducible(path, trusted), data, path, day, "config.yaml beside the checkpoint").write(folder)
    return folder
