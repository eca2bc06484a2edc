"""Streams of p-values under the law that calibration gives them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dubio.serving.drift.subject import Subject
from dubio.serving.drift.watch import Rows
from dubio.uncertainty.detection.conformal import level

ALPHA = DELTA = 0.05


@pytest.fixture
def subject() -> Subject:
    """A version with a promise from 1000 calibration rows."""
    return Subject("digits", "1", "c" * 64, ALPHA, DELTA, 1000, 1)


@pytest.fixture
def draw_rows() -> Callable[..., Rows]:
    """Rows of a stream with a calibration set of its own, of which some are strangers, 80% of whom are flagged."""

    def draw(generator: np.random.Generator, length: int, calibration: int = 1000, strangers: float = 0.0) -> Rows:
        flagged_at = level(calibration, ALPHA, DELTA)
        scores = np.sort(generator.random(calibration))
        p_values = (1 + np.searchsorted(scores, generator.random(length))) / (calibration + 1)
        strange = generator.random(length) < strangers
        smallest, rest = generator.integers(1, round(flagged_at * (calibration + 1)) + 1, length), p_values
        flagged = generator.random(length) < 0.8
        p_values = np.where(strange & flagged, smallest / (calibration + 1), rest)
        return Rows(p_values, p_values <= flagged_at)

    return draw
