"""Corruptions: damage that may befall inputs, by which a report tests how robust answers and flags are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dubio.models import InputSpec
from dubio.models.inputs.tabular import Column
from dubio.models.inputs.text import PADDING, UNKNOWN

SEVERITIES = (1, 2, 3)

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]


def corruptions(spec: InputSpec) -> Mapping[str, Corruption]:
    """What may befall inputs of this kind, by name; each takes raw rows and how bad it is, from 1 to 3."""
    if spec.kind == "image":
        return {
            "noise": lambda x, severity, generator: _noise(x, severity, generator, spec),
            "blur": lambda x, severity, _: _blur(x, severity),
            "shift": lambda x, severity, _: _shift(x, severity, spec),
        }
    if spec.kind == "text":
        return {"dropped words": _drop_words}
    return {
        "missing columns": lambda x, severity, generator: _missing_columns(x, severity, generator, spec),
        "noise": lambda x, severity, generator: _noise(x, severity, generator, spec),
    }


def _noise(x: Tensor, severity: int, generator: torch.Generator, spec: InputSpec) -> Tensor:
    """Normal noise: 5, 10 or 20% of an image's range, 10, 20 or 40% of a column's standard deviation."""
    noise = torch.randn(x.shape, generator=generator)
    if spec.kind == "image":
        amount = (spec.high - spec.low) * 0.025 * 2.0**severity
        return (x + noise * amount).clamp(spec.low, spec.high)
    scale_F = torch.tensor(spec.std) * (0.05 * 2.0**severity)
    if spec.columns is not None:  # what says that something is the case stays as it is
        scale_F = scale_F * ~torch.tensor([each for column in spec.columns for each in column.indicators])
    return x + noise * scale_F


def _blur(x: Tensor, severity: int) -> Tensor:
    """The mean over 3 x 3 pixels, once, twice or three times; the edge is repeated."""
    for _ in range(severity):
        x = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return x


def _shift(x: Tensor, severity: int, spec: InputSpec) -> Tensor:
    """Moved down and to the right by 1/16, 2/16 or 3/16 of its size, at least a pixel each; the edge is the darkest."""
    down, right = (max(severity, round(severity * size / 16)) for size in spec.shape[1:])
    moved = torch.full_like(x, spec.low)
    moved[..., down:, right:] = x[..., :-down, :-right]
    return moved


def _missing_columns(x: Tensor, severity: int, generator: torch.Generator, spec: InputSpec) -> Tensor:
    """A tenth, a quarter or half of each row's columns are what stands for a missing value."""
    columns: list[tuple[slice, Tensor]] = []
    if spec.columns is None:
        columns = [(slice(index, index + 1), torch.tensor([mean])) for index, mean in enumerate(spec.mean)]
    else:
        first = 0
        for column in spec.columns:
            columns.append((slice(first, first + len(column.features)), _absent(column)))
            first += len(column.features)
    gone_BC = torch.rand(len(x), len(columns), generator=generator) < (0.1, 0.25, 0.5)[severity - 1]
    x = x.clone()
    for (where, absent), gone_B in zip(columns, gone_BC.T, strict=True):
        x[gone_B, where] = absent
    return x


def _absent(column: Column) -> Tensor:
    """The numbers of a missing value; where no row had a hole, of the median, or of a category that was never seen."""
    if column.kind == "numeric":
        value = column.fill - column.offset
        return torch.tensor([value, 1.0] if column.missing else [value])
    numbers = torch.zeros(len(column.features))
    numbers[-2 if column.missing else -1] = 1
    return numbers


def _drop_words(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A tenth, a quarter or half of a text's words are ones that the vocabulary has not."""
    gone = torch.rand(x.shape, generator=generator) < (0.1, 0.25, 0.5)[severity - 1]
    return torch.where(gone & (x != PADDING), torch.full_like(x, UNKNOWN), x)
