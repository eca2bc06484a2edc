"""Inputs to try a model with: for the page and for the API's documentation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# 1,024 numbers (32 x 32 pixels) are about what a person can still look through.
_MOST_VALUES = 1024


def example_instance(shape: tuple[int, ...], *, low: float, high: float) -> list[Any] | None:
    """One instance of `shape` with values between `low` and `high`, without a leading channel axis of 1.

    Images show an upright stroke; rows of numbers climb from a quarter to three quarters of the range.

    Returns:
        Nested lists, or None when the shape holds more than 1,024 values.
    """
    if math.prod(shape) > _MOST_VALUES:
        return None
    if len(shape) == 3:
        across = np.linspace(-1, 1, shape[2])
        down = np.linspace(-1, 1, shape[1])[:, None]
        parts = np.exp(-((across / 0.25) ** 2)) * (np.abs(down) <= 0.8)
        parts = np.broadcast_to(parts, shape)
        values = parts[0] if shape[0] == 1 else parts
    else:
        values = np.linspace(0.25, 0.75, math.prod(shape)).reshape(shape)
    # Whole numbers where the range allows them: pixels are easier to read as 13 than as 12.7.
    digits = 0 if high - low >= 8 else 3
    nested: list[Any] = np.round(low + values * (high - low), digits).tolist()
    return nested
