"""Answers as a table: a column for each field, called as the service calls it, and the files that tables become."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dubio.models.decision import members
from dubio.models.prediction import Prediction

if TYPE_CHECKING:  # it takes a quarter of a second to import, and serving does without
    import polars as pl

SUFFIXES = (".csv", ".parquet", ".jsonl")
# How the columns of an answer begin, and what stands beside it.
FIELDS = ("row", "split", "deterministic", "mc", "uncertainty", "ood", "label_set", "decision")

Columns = dict[str, NDArray[Any]]
"""Values by the name of their column, one a row; None among objects where there is no value."""

_FORMULA = r"^[=+\-@\t\r\n]"
_NUMBER = r"^[+-]?[0-9]+([.,][0-9]+)*([eE][+-]?[0-9]+)?$"


def columns(answer: Prediction, classes: tuple[str, ...]) -> Columns:
    """A prediction with its flag, column by column.

    Args:
        answer: Of B inputs.
        classes: Names, in the order of the logits.
    """
    rows, names = len(answer.label), np.array(classes, dtype=object)

    def by_class(field: str, values_BC: NDArray[np.float32]) -> Columns:
        return {f"{field}.{name}": values_BC[:, index] for index, name in enumerate(classes)}

    return {
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
        "ood.flagged": _given(answer.flagged, rows),
        "ood.p_value": _given(answer.p_value, rows),
        "ood.level": _given(None if answer.level is None else np.full(rows, answer.level), rows),
        "ood.reason": np.array(answer.reasons, dtype=object),
        "label_set.labels": _label_sets(answer, classes),
        **_decisions(answer, rows),
    }


def frame(values: Mapping[str, NDArray[Any]]) -> pl.DataFrame:
    """The columns of an answer as a frame whose types do not depend on which values are missing."""
    import polars as pl

    def kind(name: str) -> type[pl.DataType]:
        if name.startswith("decision.") or name == "ood.flagged":
            return pl.Boolean
        return pl.Float64 if name in ("ood.p_value", "ood.level") else pl.String

    return pl.DataFrame(
        [
            pl.Series(name, each.tolist(), dtype=kind(name)) if each.dtype == object else pl.Series(name, each)
            for name, each in values.items()
        ]
    )


def write(table: pl.DataFrame, target: Path | IO[bytes], suffix: str) -> None:
    """Write a table in the format of a suffix, one of `SUFFIXES`."""
    if suffix == ".csv":
        _without_formulas(table).write_csv(target)
    elif suffix == ".parquet":
        table.write_parquet(target)
    else:
        table.write_ndjson(target)


def _without_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """The table with a quote in front of every text and name that a spreadsheet would compute.

    Source:
        OWASP, CSV Injection.
    """
    import polars as pl

    texts = pl.col(pl.String)
    formula = texts.str.contains(_FORMULA) & ~texts.str.contains(_NUMBER)
    safe = table.with_columns(pl.when(formula).then("'" + texts).otherwise(texts).name.keep())
    return safe.rename({name: f"'{name}" for name in table.columns if re.match(_FORMULA, name)})


def _given(values: NDArray[Any] | None, rows: int) -> NDArray[Any]:
    return np.full(rows, None, dtype=object) if values is None else values


def _label_sets(answer: Prediction, classes: tuple[str, ...]) -> NDArray[np.object_]:
    """The names in each label set as a JSON list, for a name may hold any sign."""
    told = np.full(len(answer.label), None, dtype=object)
    if answer.label_set is not None:
        alone = np.array([json.dumps([name], ensure_ascii=False) for name in classes], dtype=object)
        told[:] = alone[answer.label_set.argmax(1)]
        for row in np.flatnonzero(answer.label_set.sum(1) != 1):
            held = members(answer.label_set[row], answer.mc_mean[row])
            told[row] = json.dumps([classes[index] for index in held], ensure_ascii=False)
    return told


def _decisions(answer: Prediction, rows: int) -> Columns:
    """Whether each answer is accepted, at the first risk and at each of the others."""
    if not answer.decisions:
        return {"decision.accepted": _given(None, rows)}
    first, *others = answer.decisions
    return {
        "decision.accepted": _given(first.accepted, rows),
        **{f"decision.accepted_at_{each.risk:g}": _given(each.accepted, rows) for each in others},
    }
