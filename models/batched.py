"""Batched values: dataclasses whose arrays and lists have one entry a row, taken apart and joined by rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

import numpy as np


def join(values: Sequence[Any]) -> Any:
    """One value with the rows of several, in their order; what is not by row is that of the first."""
    first = values[0]
    if isinstance(first, tuple):
        return tuple(join(parts) for parts in zip(*values, strict=True))
    if is_dataclass(first) and not isinstance(first, type):
        return type(first)(**{name: join([getattr(each, name) for each in values]) for name in vars(first)})
    if isinstance(first, np.ndarray):
        return np.concatenate(values)
    return [each for value in values for each in value] if isinstance(first, list) else first


def split(value: Any, parts: Sequence[slice]) -> list[Any]:
    """The same value with some of its rows, and with others, looking at what it is made of once."""
    if isinstance(value, np.ndarray | list):
        return [value[part] for part in parts]
    if isinstance(value, tuple):
        return list(zip(*(split(each, parts) for each in value), strict=True)) if value else [()] * len(parts)
    if is_dataclass(value) and not isinstance(value, type):
        kind, fields = type(value), (split(each, parts) for each in vars(value).values())
        return [kind(*row) for row in zip(*fields, strict=True)]
    return [value] * len(parts)
