"""Synthetic data: made by scikit-learn's generators, to try things without any data."""

from __future__ import annotations

from typing import Literal

import numpy as np
from sklearn import datasets

from dubio.training.data.module import Rows, TensorDataModule
from dubio.training.data.splits import SplitName, counts, split
from dubio.training.errors import TrainingError

Kind = Literal["blobs", "moons", "rings", "hypercube"]


class Synthetic(TensorDataModule):
    """Rows of numbers in classes whose shape is known.

    Args:
        kind: `blobs` (a cloud a class), `moons` (two half circles, two features), `rings` (one within the other, two
            features) or `hypercube` (clouds at its corners, with features that say nothing; Guyon 2003).
        rows: How many there are.
        features: Numbers in a row, of `blobs` and `hypercube`.
        num_classes: How many classes, of `blobs` and `hypercube`.
        noise: Standard deviation around the shape.
        train: Fraction that trains the network.
        validation: Fraction that chooses the best checkpoint.
        select: Fraction that fits the temperature and ranks the scores.
        calibration: Fraction that sets the threshold of the flag.
        test: Fraction that measures.
        batch_size: Rows a batch.
        seed: Draws and divides the rows and orders the training batches.
    """

    def __init__(
        self,
        kind: Kind = "moons",
        rows: int = 2000,
        features: int = 2,
        num_classes: int = 2,
        noise: float = 0.2,
        train: float = 0.6,
        validation: float = 0.08,
        select: float = 0.08,
        calibration: float = 0.12,
        test: float = 0.12,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        if kind in {"moons", "rings"} and (features, num_classes) != (2, 2):
            raise TrainingError(
                f"Expected 2 `features` and 2 `num_classes` for {kind}, but got {features} and {num_classes}; leave "
                "them out, or choose blobs."
            )
        if rows < 1 or features < 1 or num_classes < 2 or noise < 0:
            raise TrainingError(
                f"Expected positive `rows` and `features`, at least 2 `num_classes` and no negative `noise`, but got "
                f"{rows}, {features}, {num_classes} and {noise}."
            )
        self.kind, self.rows, self.features, self.noise = kind, rows, features, noise
        self.title = f"synthetic {kind}"
        self.classes = tuple(str(number) for number in range(num_classes))
        self.fractions: dict[SplitName, float] = {
            "train": train,
            "validation": validation,
            "select": select,
            "calibration": calibration,
            "test": test,
        }

    def read(self) -> dict[SplitName, Rows]:
        x, labels = self._draw()
        rows = Rows(x.astype(np.float32), labels.astype(np.int64))
        sizes = counts(self.fractions, len(labels))
        return {name: rows.take(part) for name, part in split(rows.labels, sizes, self.seed, self.classes).items()}

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        if self.kind == "moons":
            x, labels = datasets.make_moons(self.rows, noise=self.noise, random_state=self.seed)
        elif self.kind == "rings":
            x, labels = datasets.make_circles(self.rows, noise=self.noise, factor=0.4, random_state=self.seed)
        elif self.kind == "blobs":
            centres = len(self.classes)
            x, labels = datasets.make_blobs(
                self.rows, self.features, centers=centres, cluster_std=self.noise, random_state=self.seed
            )
        else:
            x, labels = self._hypercube()
        return x, labels

    def _hypercube(self) -> tuple[np.ndarray, np.ndarray]:
        telling = int(np.ceil(np.log2(len(self.classes)))) + 1
        if self.features < telling:
            raise TrainingError(
                f"Expected at least {telling} `features` for {len(self.classes)} classes of a hypercube, but got "
                f"{self.features}."
            )
        x, labels = datasets.make_classification(
            self.rows,
            self.features,
            n_informative=telling,
            n_redundant=0,
            n_classes=len(self.classes),
            n_clusters_per_class=1,
            class_sep=1.0,
            flip_y=0.0,
            random_state=self.seed,
        )
        return x + np.random.default_rng(self.seed).normal(0, self.noise, x.shape), labels
