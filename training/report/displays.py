"""Displays: a raw input as a reader can look at it."""

from __future__ import annotations

from torch import Tensor

from dubio.models import InputSpec
from dubio.models.inputs.tabular import CategoricalColumn, NumericColumn
from dubio.models.inputs.text import PADDING
from dubio.models.spec import shortest

COLUMNS = 8  # of a row; the others are counted


def display(raw: Tensor, spec: InputSpec, number: int) -> str:
    """A text, a row's columns, or the number of the picture beside it.

    Args:
        raw: One raw input.
        spec: What it is.
        number: Which one it is of those that are shown.
    """
    if spec.kind == "image":
        return f"image {number}"
    if spec.tokenizer is not None:
        words = [spec.tokenizer.vocabulary[int(token)] for token in raw.tolist() if int(token) != PADDING]
        return " ".join(words)
    if spec.columns is None:
        cells = [f"{value:.4g}" for value in raw.tolist()]
    else:
        cells, first = [], 0
        for column in spec.columns:
            numbers = raw[first : first + len(column.features)].tolist()
            first += len(column.features)
            cells.append(f"{column.name}: {_cell(column, numbers)}")
    more = f", and {len(cells) - COLUMNS} more" if len(cells) > COLUMNS else ""
    return ", ".join(cells[:COLUMNS]) + more


def _cell(column: NumericColumn | CategoricalColumn, numbers: list[float]) -> str:
    if isinstance(column, NumericColumn):
        if column.missing and numbers[1]:
            return "missing"
        return f"{shortest(numbers[0] + column.offset):.6g}"
    place = numbers.index(max(numbers))
    named = [*column.categories, *(["missing"] if column.missing else []), "a category never seen"]
    return named[place]
