from __future__ import annotations

import numpy as np
import pytest

from dubio.training.readers.precision import is_lost

RANDOM = np.random.default_rng(0)
MINUTE = RANDOM.integers(0, 60_000, 400)
METRES = RANDOM.normal(0, 3, 400)


@pytest.mark.parametrize(
    "values",
    [
        1.7e12 + MINUTE,
        1_700_000_000_000 + MINUTE,
        2_600_000 + METRES,
        -2_600_000 + METRES,
        RANDOM.normal(size=9) * 1e-50,
    ],
    ids=["milliseconds", "whole", "coordinates", "negative", "tiny"],
)
def test_a_spread_of_few_steps_is_lost(values: np.ndarray):
    assert is_lost(values)
    assert len(np.unique(values.astype(np.float32))) < len(np.unique(values)) / 2


@pytest.mark.parametrize(
    "values",
    [
        METRES,
        METRES * 1e30,
        2_600_000 + METRES * 1000,
        RANDOM.integers(1990, 2030, 400),
        np.full(9, 0.1),
        0.1 + np.array([0, 1e-17, 2e-17, 3e-17]),
        np.zeros(9),
        np.array([2.0**24, 2.0**24 + 2]),
        np.array([[0, 255]], dtype=np.uint8),
        (1.7e12 + MINUTE).astype(np.float32),
    ],
    ids=["small", "large", "wide", "years", "constant", "rounding", "zero", "exact", "pixels", "lost-before"],
)
def test_what_32_bits_hold_or_what_is_no_spread_is_not(values: np.ndarray):
    assert not is_lost(values)
