"""Predictions for a whole source: what the service would answer, row by row, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dubio.models import Predictor, answer_table
from dubio.models.answer_table import FIELDS, SUFFIXES
from dubio.models.errors import InvalidInput
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import TrainingError, UnreadableData
from dubio.training.progress import progress
from dubio.training.splits.division import splits_of

if TYPE_CHECKING:  # it takes a quarter of a second to import, and a fit predicts nothing
    import polars as pl


@dataclass(frozen=True)
class PredictionSettings:
    """What answers, and what is written where.

    Args:
        ckpt_path: Calibrated checkpoint; by default the run's own.
        output: File to write, .csv, .parquet or .jsonl; by default predictions.csv in the run's folder.
        ids: Columns of the source to carry over, which say which row is which.
    """

    ckpt_path: str | None = None
    output: str | None = None
    ids: tuple[str, ...] = ()


def check_path(path: Path) -> None:
    """Refuse a file whose format is not known, before any work.

    Raises:
        TrainingError: If its name has another suffix.
    """
    if path.suffix not in SUFFIXES:
        raise TrainingError(
            f"Expected `--output` to end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, but got {path.name!r}."
        )


def predict(predictor: Predictor, data: TensorDataModule) -> pl.DataFrame:
    """Ask the predictor about every row.

    Args:
        predictor: As the service loads it.
        data: Follows the predictor's checkpoint, for predictions.

    Returns:
        In the source's order: the number of the row, counted from 0, the columns in `data.ids`, the split that the
        row, or one that equals it, was in at the fit, if it was in one, and the answer, with columns called as the
        service calls its fields.

    Raises:
        UnreadableData: If the network cannot answer a row.
        TrainingError: If an id column is absent, or called like one of the answer.
    """
    import polars as pl

    x, _ = data.raw("test")
    dataset, answers = data.load(), []
    for name in (*data.ids, *dataset.ids):
        if name not in dataset.ids:
            raise TrainingError(f"Expected `--ids` to name columns, but {data.title} has none beside its inputs.")
        if name.split(".")[0] in FIELDS:
            raise TrainingError(
                f"Expected `--ids` to name columns that no answer has, but got {name!r}: answers have `row`, the row's "
                f"number in the file, and what begins with {', '.join(FIELDS[1:])}; rename it."
            )
    with progress("Predicting", len(x)) as batches:
        first = 0
        for batch in batches(x):
            try:
                answer = predictor.predict(batch)
                answers.append(answer_table.frame(answer_table.columns(answer, predictor.classes)))
            except InvalidInput as error:
                raise UnreadableData(f"{data.title}, counted from {dataset.at(first)}: {error}") from error
            first += len(batch)
    keys = pl.DataFrame({"row": range(len(x)), **dataset.ids}, strict=False)
    frame = keys.with_columns(pl.Series("split", splits_of(dataset, data.trained), dtype=pl.String))
    return frame.hstack(pl.concat(answers))


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write a table, as the suffix of the file says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    answer_table.write(frame, path, path.suffix)
