"""Mahalanobis distances: how far a row is from Gaussians fitted to the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dubio.uncertainty.detection.gaussians import SHRINKAGE, ClassGaussians, Distances, centred
from dubio.uncertainty.detection.measures import product, unit_norm
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.scores import UNFAMILIAR, Score
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError

# The covariance of the inputs is a matrix of this width at most: 4096^2 numbers of four bytes are 64 MiB.
MAX_INPUT_WIDTH = 4096


@dataclass(frozen=True)
class Mahalanobis(Score):
    """min_c MD_c(h): squared distance of the features from the nearest class, with one covariance for all classes.

    Source: Lee 2018, at the last layer.
    """

    name = "mahalanobis"
    reason = UNFAMILIAR
    fits_classes = True

    gaussians: ClassGaussians

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0, shrinkage: float = SHRINKAGE) -> Self:
        """Estimate the Gaussians of the penultimate features; every class that occurs must occur at least twice.

        Raises:
            NoFeatures: If the network offers none.
            CalibrationSetTooSmall: If there are no rows, or a class has fewer than two.
        """
        return cls(ClassGaussians.fit(cls._rows(train), labels_N, shrinkage))

    def score(self, outputs: Outputs) -> Tensor:
        """Squared distance, ``[B]`` in float64."""
        return self._distances(outputs).to_nearest_B

    def _distances(self, outputs: Outputs) -> Distances:
        seen = outputs.deterministic
        return seen.once((self.gaussians, self._rows), lambda: self.gaussians.distances(self._rows(seen)))

    @staticmethod
    def _rows(seen: DeterministicPass) -> Tensor:
        return seen.features()


class UnitMahalanobis(Mahalanobis):
    """The same of features h / |h|: their length, which varies for other reasons than strangeness, does not count.

    Source: Mueller and Hein 2025 (Mahalanobis++).
    """

    name = "unit_mahalanobis"

    @staticmethod
    def _rows(seen: DeterministicPass) -> Tensor:
        return unit_norm(seen.features())


class RelativeMahalanobis(Mahalanobis):
    """min_c MD_c(h) - MD_0(h): are the features farther from every class than from the data as a whole?

    MD_c uses the class means and one covariance shared by the classes, MD_0 the mean and covariance of all rows.

    Source: Ren 2021.
    """

    name = "relative_mahalanobis"

    def score(self, outputs: Outputs) -> Tensor:
        """Relative squared distance, ``[B]`` in float64; negative inside the classes."""
        distances = self._distances(outputs)
        return distances.to_nearest_B - distances.to_all_B


class UnitRelativeMahalanobis(RelativeMahalanobis):
    """The same of features h / |h|.

    Source: Mueller and Hein 2025 (relative Mahalanobis++).
    """

    name = "unit_relative_mahalanobis"

    @staticmethod
    def _rows(seen: DeterministicPass) -> Tensor:
        return unit_norm(seen.features())


class InputClassMahalanobis(Mahalanobis):
    """The same of the input itself: min_c MD_c(x)."""

    name = "input_class_mahalanobis"

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0, shrinkage: float = SHRINKAGE) -> Self:
        """Estimate the Gaussians of the inputs; every class that occurs must occur at least twice.

        Raises:
            UncertaintyError: If the inputs are too wide.
            CalibrationSetTooSmall: If there are no rows, or a class has fewer than two.
        """
        _narrow(train, cls.name)
        return super().fit(train, labels_N, k, shrinkage)

    @staticmethod
    def _rows(seen: DeterministicPass) -> Tensor:
        return seen.inputs_BF


class InputMahalanobis(InputClassMahalanobis):
    """Squared distance (x - mu)^T Sigma^-1 (x - mu) of an input from one Gaussian fitted to all training rows.

    It sees what the network has learned to ignore: features that were trained to tell the classes apart need not tell
    strangers from the data at all.
    """

    name = "input_mahalanobis"
    fits_classes = False
    lender = InputClassMahalanobis.name

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0, shrinkage: float = SHRINKAGE) -> Self:
        """Estimate the Gaussian of the inputs; neither labels nor k matter.

        Raises:
            UncertaintyError: If the inputs are too wide.
            CalibrationSetTooSmall: If there are fewer than two rows.
        """
        if len(train.inputs_BF) < 2:
            raise CalibrationSetTooSmall(
                f"Expected at least 2 rows for a Mahalanobis score, but got {len(train.inputs_BF)}."
            )
        return super().fit(train, torch.zeros_like(labels_N), k, shrinkage)

    def score(self, outputs: Outputs) -> Tensor:
        """Squared distance, ``[B]`` in float64."""
        return self._distances(outputs).to_all_B

    def contributions(self, inputs_BF: Tensor) -> Tensor:
        """What each number of an input adds to its squared distance, ``[B, F]`` in float64.

        With z = x - mu it is z_i (Sigma^-1 z)_i: these sum to z^T Sigma^-1 z. A number that makes others likelier, as
        it varies together with them, adds less than nothing.
        """
        whitening_FF = self.gaussians.whitening.double()
        centred_BF = centred(inputs_BF, self.gaussians.mean_F).double()
        return centred_BF * product(product(centred_BF, whitening_FF), whitening_FF.T)


def _narrow(train: DeterministicPass, name: str) -> None:
    """Refuse inputs whose covariance would be too large."""
    width = train.inputs_BF.shape[1]
    if width > MAX_INPUT_WIDTH:
        raise UncertaintyError(
            f"Expected inputs of at most {MAX_INPUT_WIDTH} numbers for the score `{name}`, but got {width}; "
            "leave it out of `scores`."
        )
