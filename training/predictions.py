"""Predictions for a whole source: what the service would answer, row by row, in one table."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dubio.models import Prediction, Predictor
from dubio.models.decision import members
from dubio.models.errors import InvalidInput
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import TrainingError, UnreadableData
from dubio.training.progress import progress
from dubio.training.splits.division import splits_of

if TYPE_CHECKING:  # it takes a quarter of a second to import, and a fit predicts nothing
    import polars as pl

SUFFIXES = (".csv", ".parquet", ".jsonl")
FIELDS = (
    "row",
    "split",
    "deterministic",
    "mc",
    "uncertainty",
    "ood",
    "label_set",
    "decision",
)  # how the columns of an answer begin
_FORMULA = r"^[=+\-@\t\r\n]"
_NUMBER = r"^[+-]?[0-9]+([.,][0-9]+)*([eE][+-]?[0-9]+)?$"


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
                answers.append(_table(predictor.predict(batch), predictor.classes))
            except InvalidInput as error:
                raise UnreadableData(f"{data.title}, counted from {dataset.at(first)}: {error}") from error
            first += len(batch)
    keys = pl.DataFrame({"row": range(len(x)), **dataset.ids}, strict=False)
    frame = keys.with_columns(pl.Series("split", splits_of(dataset, data.trained), dtype=pl.String))
    return frame.hstack(pl.concat(answers))


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write a table, as the suffix of the file says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        _without_formulas(frame).write_csv(path)
    elif path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_ndjson(path)


def _without_formulas(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with a quote in front of every text and name that a spreadsheet would compute.

    Source:
        OWASP, CSV Injection.
    """
    import polars as pl

    texts = pl.col(pl.String)
    formula = texts.str.contains(_FORMULA) & ~texts.str.contains(_NUMBER)
    safe = frame.with_columns(pl.when(formula).then("'" + texts).otherwise(texts).name.keep())
    return safe.rename({name: f"'{name}" for name in frame.columns if re.match(_FORMULA, name)})


def _label_sets(answer: Prediction, classes: tuple[str, ...]) -> list[str | None]:
    """The names in each label set as a JSON list, for a name may hold any sign."""
    if answer.label_set is None:
        return [None] * len(answer.label)
    return [
        json.dumps([classes[index] for index in members(held, mean_C)], ensure_ascii=False)
        for held, mean_C in zip(answer.label_set, answer.mc_mean, strict=True)
    ]


def _decisions(answer: Prediction) -> dict[str, npt.NDArray[np.bool_] | None]:
    """Whether each answer is accepted, at the first risk and at each of the others."""
    if not answer.decisions:
        return {"decision.accepted": None}
    first, *others = answer.decisions
    return {
        "decision.accepted": first.accepted,
        **{f"decision.accepted_at_{each.risk:g}": each.accepted for each in others},
    }


def _table(answer: Prediction, classes: tuple[str, ...]) -> pl.DataFrame:
    import polars as pl

    names = np.array(classes, dtype=object)

    def by_class(field: str, values_BC: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        return {f"{field}.{name}": values_BC[:, index] for index, name in enumerate(classes)}

    return pl.DataFrame(
        {
            "deterministic.label": names[answer.label],
            "deterministic.probability": answer.probabilities.max(1),
            **by_class("deterministic.probabilities", answer.probabilities),
            "mc.samples": answer.mc_samples,
            "mc.label": names[answer.mc_label],
            **by_class("mc.mean", answer.mc_mean),
            **by_class("mc.std", answer.mc_std),
            "uncertainty.predictive_entropy": answer.predictive_entropy,
            "uncertainty.expected_entropy": answer.expected_entropy,
            "uncertainty.mutual_information": answer.mutual_information,
            "ood.flagged": answer.flagged,
            "ood.p_value": answer.p_value,
            "ood.level": answer.level,
            "ood.reason": pl.Series(answer.reasons, dtype=pl.String),
            "label_set.labels": pl.Series(_label_sets(answer, classes), dtype=pl.String),
            **_decisions(answer),
        }
    )
