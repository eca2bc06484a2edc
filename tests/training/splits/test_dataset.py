from __future__ import annotations

import numpy as np
import pytest

from dubio.training.errors import TrainingError
from dubio.training.splits.dataset import Dataset, Examples, fit_input

IMAGES = np.arange(5 * 2 * 3 * 4).reshape(5, 2, 3, 4).astype(np.uint8)


def test_rows_keep_their_labels_when_they_are_divided():
    splits = Examples(IMAGES, np.arange(5)).divide({"train": np.array([4, 0]), "test": np.array([2])})
    assert {name: part.labels.tolist() for name, part in splits.items()} == {"train": [4, 0], "test": [2]}
    assert np.array_equal(splits["train"].x, IMAGES[[4, 0]])


def test_inputs_are_described_by_the_training_rows():
    splits = Examples(IMAGES, np.arange(5)).divide({"train": np.arange(4), "test": np.array([4])})
    spec = Dataset.of_numbers(splits, ("a", "b")).input
    assert (spec.kind, spec.shape, spec.low, spec.high) == ("image", (2, 3, 4), 0.0, 95.0)
    assert spec.mean == pytest.approx([IMAGES[:4, channel].mean() for channel in range(2)])
    assert spec.std == pytest.approx([IMAGES[:4, channel].std() for channel in range(2)])
    numbers = fit_input(IMAGES[:, 0, 0])
    assert (numbers.kind, numbers.shape) == ("numbers", (4,))
    assert numbers.mean == pytest.approx(IMAGES[:, 0, 0].mean(0))


def test_a_constant_channel_does_not_divide_by_zero():
    x = np.zeros((5, 2, 3, 3), dtype=np.uint8)
    x[:, 1] = np.arange(5)[:, None, None]
    spec = fit_input(x)
    assert spec.std[0] == 1.0
    assert spec.std[1] == pytest.approx(np.arange(5).std())


def test_a_given_scale_is_one_number_or_one_a_channel():
    spec = fit_input(IMAGES, (1.0, (2.0, 4.0)))
    assert (spec.mean, spec.std) == ((1.0, 1.0), (2.0, 4.0))
    for scale, message in (
        ((0.0, (1.0, 2.0, 3.0)), r"`data\.init_args\.std` to be one finite number, or 2"),
        ((float("nan"), 1.0), r"`data\.init_args\.mean` to be one finite number"),
        ((0.0, (1.0, 0.0)), "positive, but got 0"),
    ):
        with pytest.raises(TrainingError, match=message):
            fit_input(IMAGES, scale)
