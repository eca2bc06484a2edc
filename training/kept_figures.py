"""The figures of the test split that a checkpoint keeps, so that whoever serves it can show them."""

from __future__ import annotations

from pathlib import Path

from dubio.models import Predictor
from dubio.models.checkpoint import file
from dubio.models.checkpoint.schema import KEY
from dubio.models.spec import Measured
from dubio.training import evaluation
from dubio.training.data.module import TensorDataModule
from dubio.training.evaluation import Evaluation


def measure(predictor: Predictor, data: TensorDataModule, path: Path) -> Evaluation:
    """Measure a predictor on the test split, and write into its checkpoint what came out.

    Args:
        predictor: Calibrated.
        data: Gives the rows.
        path: Of the checkpoint.
    """
    found = evaluation.evaluate(predictor, data)
    if found.rows and found.mc is not None and found.flagged is not None:
        figures = Measured(
            rows=found.rows,
            accuracy=found.deterministic.accuracy,
            mc_accuracy=found.mc.accuracy,
            flagged=found.flagged / found.rows,
        )
        content = file.read_content(path)
        content[KEY]["provenance"]["measured"] = figures.model_dump()
        file.write(content, path)
    return found
