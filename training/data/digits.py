"""scikit-learn's handwritten digits: 1797 images of 8 x 8 pixels, shipped inside the library."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from dubio.training.data.module import Rows, TensorDataModule
from dubio.training.data.splits import SplitName, counts, split


class Digits(TensorDataModule):
    """The ten digits, as `[1, 8, 8]` images with pixels from 0 to 16; needs no download.

    Args:
        train: Fraction that trains the network.
        validation: Fraction that chooses the best checkpoint.
        select: Fraction that fits the temperature and ranks the scores.
        calibration: Fraction that sets the threshold of the flag.
        test: Fraction that measures.
        batch_size: Rows a batch.
        seed: Divides the rows and orders the training batches.
    """

    title = "digits (scikit-learn)"
    classes = tuple(str(digit) for digit in range(10))

    def __init__(
        self,
        train: float = 0.6,
        validation: float = 0.08,
        select: float = 0.08,
        calibration: float = 0.12,
        test: float = 0.12,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self.fractions: dict[SplitName, float] = {
            "train": train,
            "validation": validation,
            "select": select,
            "calibration": calibration,
            "test": test,
        }

    def read(self) -> dict[SplitName, Rows]:
        digits = load_digits()
        rows = Rows(digits.images[:, np.newaxis].astype(np.float32), digits.target.astype(np.int64))
        sizes = counts(self.fractions, len(rows.labels))
        return {name: rows.take(part) for name, part in split(rows.labels, sizes, self.seed).items()}
