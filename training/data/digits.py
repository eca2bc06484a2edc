"""scikit-learn's handwritten digits: 1797 images of 8 x 8 pixels, shipped inside the library."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from dubio.training.data.module import FractionDataModule
from dubio.training.splits.dataset import Dataset, Examples


class Digits(FractionDataModule):
    """The ten digits, as `[1, 8, 8]` images with pixels from 0 to 16; needs no download."""

    title = "digits (scikit-learn)"
    public = True

    def read(self) -> Dataset:
        digits = load_digits()
        examples = Examples(digits.images[:, np.newaxis].astype(np.float32), digits.target.astype(np.int64))
        classes = tuple(map(str, digits.target_names))
        parts = self.divide(examples.labels, classes)
        return Dataset.of_numbers(examples.divide(parts), classes, parts=parts)
