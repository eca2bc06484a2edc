from __future__ import annotations

import numpy as np
import pytest

from serving.v1.instances import to_array
from serving.web.examples import example_instance


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 16, 16), (5,), (1,)])
@pytest.mark.parametrize(("low", "high"), [(0, 16), (0, 255), (-1, 1), (0, 0)])
def test_an_example_is_an_input_within_the_range_of_training(shape: tuple[int, ...], low: float, high: float) -> None:
    array = to_array([example_instance(shape, low=low, high=high)], shape=shape, max_rows=1)
    assert array.min() >= low
    assert array.max() <= high
    if high > low and len(shape) == 3:
        assert len(np.unique(array)) > 1


def test_what_nobody_can_read_is_no_example() -> None:
    assert example_instance((3, 224, 224), low=0, high=1) is None
