from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dubio.training import Digits
from dubio.training.errors import InvalidSplit
from dubio.training.splits.random_splits import SPLITS
from dubio.uncertainty.detection import conformal


def test_the_five_splits_are_all_the_digits(digits: Digits):
    rows = np.concatenate([digits.splits[name].x for name in SPLITS]).reshape(-1, 64)
    everything = load_digits().data
    assert rows.shape == (1797, 64)
    assert np.array_equal(rows[np.lexsort(rows.T)], everything[np.lexsort(everything.T)])


def test_labels_belong_to_their_images(digits: Digits):
    known = {image.tobytes(): label for image, label in zip(load_digits().data, load_digits().target, strict=True)}
    x, labels = digits.raw("select")
    assert [known[image.astype(np.float64).tobytes()] for image in x.numpy().reshape(-1, 64)] == labels.tolist()


def test_the_input_is_described_as_a_user_has_it(digits: Digits):
    assert digits.input.kind == "image"
    assert digits.input.shape == (1, 8, 8)
    assert (digits.input.low, digits.input.high) == (0.0, 16.0)
    assert digits.classes == tuple("0123456789")


def test_the_default_calibration_split_carries_the_default_promise(digits: Digits):
    assert 0.02 < conformal.level(len(digits.raw("calibration")[0]), alpha=0.05, delta=0.05) < 0.05


def test_fractions_are_checked():
    with pytest.raises(InvalidSplit, match="add up to 1"):
        Digits(train=0.9).setup()
