"""Synthetic data: made by scikit-learn's generators, to try things without any data."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sklearn import datasets

from dubio.training.data.module import FractionDataModule
from dubio.training.errors import TrainingError
from dubio.training.splits.dataset import Dataset, Examples

Kind = Literal["blobs", "moons", "rings", "hypercube"]


class Synthetic(FractionDataModule):
    """Rows of numbers in classes whose shape is known.

    Args:
        kind: `blobs` (a cloud a class), `moons` (two half circles, two features), `rings` (one within the other, two
            features) or `hypercube` (clouds at its corners, with features that say nothing; Guyon 2003).
        rows: How many there are.
        features: Numbers in a row, of `blobs` and `hypercube`.
        num_classes: How many classes, of `blobs` and `hypercube`.
        noise: Standard deviation around the shape.
    """

    def __init__(
        self,
        kind: Kind = "moons",
        rows: int = 2000,
        features: int = 2,
        num_classes: int = 2,
        noise: float = 0.2,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
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
        self.num_classes = num_classes

    def read(self) -> Dataset:
        x, labels = self._draw()
        examples = Examples(x.astype(np.float32), labels.astype(np.int64))
        classes = tuple(map(str, range(self.num_classes)))
        parts = self.divide(examples.labels, classes)
        return Dataset.of_numbers(examples.divide(parts), classes, parts=parts)

    def reading(self) -> dict[str, Any]:
        own = {"kind": self.kind, "rows": self.rows, "features": self.features, "num_classes": self.num_classes}
        return {**super().reading(), **own, "noise": self.noise}

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        common = {"n_samples": self.rows, "random_state": self.seed}
        if self.kind == "moons":
            x, labels = datasets.make_moons(noise=self.noise, **common)
        elif self.kind == "rings":
            x, labels = datasets.make_circles(noise=self.noise, factor=0.4, **common)
        elif self.kind == "blobs":
            shape = {"n_features": self.features, "centers": self.num_classes}
            x, labels = datasets.make_blobs(cluster_std=self.noise, **shape, **common)
        else:
            x, labels = self._hypercube()
        return x, labels

    def _hypercube(self) -> tuple[np.ndarray, np.ndarray]:
        informative = int(np.ceil(np.log2(self.num_classes))) + 1
        if self.features < informative:
            raise TrainingError(
                f"Expected at least {informative} `features` for {self.num_classes} classes of a hypercube, but got "
                f"{self.features}."
            )
        x, labels = datasets.make_classification(
            self.rows,
            self.features,
            n_informative=informative,
            n_redundant=0,
            n_classes=self.num_classes,
            n_clusters_per_class=1,
            class_sep=1.0,
            flip_y=0.0,
            random_state=self.seed,
        )
        return x + np.random.default_rng(self.seed).normal(0, self.noise, x.shape), labels
