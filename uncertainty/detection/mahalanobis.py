"""Mahalanobis distances: how far a row is from Gaussians fitted to the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from dubio.uncertainty.detection.gaussians import (
    SHRINKAGE,
    ClassGaussians,
    centred,
    check_widths,
    whitening,
)
from dubio.uncertainty.detection.measures import product, unit_norm
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.scores import UNFAMILIAR, Score
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError

# The covariance of the inputs is a matrix of this width at most: 4096^2 numbers of four bytes are 64 MiB.
MAX_INPUT_WIDTH = 4096


@dataclass(frozen=True)
class InputMahalanobis(Score):
    """Squared distance (x - mu)^T Sigma^-1 (x - mu) of an input from one Gaussian fitted to all training rows.

    It sees what the network has learned to ignore: features that were trained to tell the classes apart need not tell
    strangers from the data at all.

    Attributes:
        mean_F: Mean of the rows, float64: rows may lie far from 0 and close together.
        whitening_FF: W with W W^T = Sigma^-1.
    """

    name = "input_mahalanobis"
    reason = UNFAMILIAR

    mean_F: Tensor
    whitening_FF: Tensor

    def __post_init__(self) -> None:
        """Refuse tensors that do not belong to one number of features."""
        check_widths(len(self.mean_F), self.whitening_FF)

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0, shrinkage: float = SHRINKAGE) -> Self:
        """Estimate the Gaussian of the inputs; neither labels nor k matter.

        Raises:
            UncertaintyError: If the inputs are too wide.
            CalibrationSetTooSmall: If there are fewer than two rows.
        """
        rows = _narrow(train, cls.name).double()
        if len(rows) < 2:
            raise CalibrationSetTooSmall(f"Expected at least 2 rows for a Mahalanobis score, but got {len(rows)}.")
        mean_F = rows.mean(0)
        return cls(mean_F, whitening(rows - mean_F, shrinkage).float())

    def score(self, outputs: Outputs) -> Tensor:
        """Squared distance, ``[B]`` in float64."""
        centred_BF = centred(outputs.deterministic.inputs_BF, self.mean_F)
        return product(centred_BF, self.whitening_FF).double().square().sum(-1)

    def contributions(self, inputs_BF: Tensor) -> Tensor:
        """What each number of an input adds to its squared distance, ``[B, F]`` in float64.

        With z = x - mu it is z_i (Sigma^-1 z)_i: these sum to z^T Sigma^-1 z. A number that makes others likelier, as
        it varies together with them, adds less than nothing.
        """
        centred_BF, whitening_FF = centred(inputs_BF, self.mean_F).double(), self.whitening_FF.double()
        return centred_BF * product(product(centred_BF, whitening_FF), whitening_FF.T)


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
        return self.gaussians.distances(self._rows(outputs.deterministic)).amin(-1)

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


@dataclass(frozen=True)
class RelativeMahalanobis(Score):
    """min_c MD_c(h) - MD_0(h): are the features farther from every class than from the data as a whole?

    MD_c uses the class means and one covariance shared by the classes, MD_0 the mean and covariance of all rows.

    Attributes:
        gaussians: Of the classes.
        whitening_FF: W with W W^T = inverse of the covariance of all rows.

    Source: Ren 2021.
    """

    name = "relative_mahalanobis"
    reason = UNFAMILIAR
    fits_classes = True

    gaussians: ClassGaussians
    whitening_FF: Tensor

    def __post_init__(self) -> None:
        """Refuse tensors that do not belong to one number of features."""
        check_widths(len(self.gaussians.mean_F), self.whitening_FF)

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0, shrinkage: float = SHRINKAGE) -> Self:
        """Estimate both Gaussians of the penultimate features; every class that occurs must occur at least twice.

        Raises:
            NoFeatures: If the network offers none.
            CalibrationSetTooSmall: If there are no rows, or a class has fewer than two.
        """
        features_NF = cls._rows(train).double()
        gaussians = ClassGaussians.fit(features_NF, labels_N, shrinkage)
        return cls(gaussians, whitening(features_NF - gaussians.mean_F, shrinkage).float())

    def score(self, outputs: Outputs) -> Tensor:
        """Relative squared distance, ``[B]`` in float64; negative inside the classes."""
        rows_BF = self._rows(outputs.deterministic)
        # Both terms grow with the square of the input and are subtracted: that needs the longer type.
        to_all_B = product(centred(rows_BF, self.gaussians.mean_F), self.whitening_FF).double().square().sum(-1)
        return self.gaussians.distances(rows_BF).amin(-1) - to_all_B

    @staticmethod
    def _rows(seen: DeterministicPass) -> Tensor:
        return seen.features()


class UnitRelativeMahalanobis(RelativeMahalanobis):
    """The same of features h / |h|.

    Source: Mueller and Hein 2025 (relative Mahalanobis++).
    """

    name = "unit_relative_mahalanobis"

    @staticmethod
    def _rows(seen: DeterministicPass) -> Tensor:
        return unit_norm(seen.features())


def _narrow(train: DeterministicPass, name: str) -> Tensor:
    """The inputs, if their covariance is small enough."""
    width = train.inputs_BF.shape[1]
    if width > MAX_INPUT_WIDTH:
        raise UncertaintyError(
            f"Expected inputs of at most {MAX_INPUT_WIDTH} numbers for the score `{name}`, but got {width}; "
            "leave it out of `scores`."
        )
    return train.inputs_BF
