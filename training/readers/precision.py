"""Whether 32 bits, in which networks compute, can tell numbers apart that 64 bits can."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# Steps of 32 bits that a standard deviation has to span, lest what sets rows apart is rounded away.
_STEPS = 256


def is_lost(values: npt.NDArray[Any]) -> bool:
    """Whether rounding to 32 bits loses what sets the values apart: their spread is but a few steps wide.

    Args:
        values: Finite numbers that are read together: of a column, or of a channel.
    """
    if values.dtype.itemsize <= 2 or values.dtype == np.float32:
        return False
    exact = values.astype(np.float64)
    largest = np.abs(exact).max()
    with np.errstate(over="ignore", under="ignore"):
        rounded = exact.astype(np.float32)
        step = float(np.spacing(np.float32(largest)))
    # What 64 bits cannot hold is rounding from a computation, and no spread.
    spread = float(exact.std())
    is_noise = spread < 16 * float(np.spacing(largest))
    return not is_noise and spread < _STEPS * step and bool((rounded != exact).any())
