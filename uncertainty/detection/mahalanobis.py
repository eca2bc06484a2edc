"""Mahalanobis distances: how far a row is from Gaussians fitted to the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.scores import UNFAMILIAR, Score
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError

# Share of the mean variance that is added to every axis, so that one that never varies keeps a finite inverse.
SHRINKAGE = 1e-3
# The covariance of the inputs is a matrix of this width at most: 4096^2 numbers of four bytes are 64 MiB.
MAX_INPUT_WIDTH = 4096
# The input's own distance is a backstop: it is there for blatant strangers, which lie beyond every select score, and
# may spend little of the false-alarm rate that the other scores need for the subtle ones. Its share of larger select
# scores counts this many times over.
BACKSTOP_COST = 10.0
# Rows come in blocks of so many, filled up with zeros.
ROW_BLOCK = 4


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
        _check_widths(len(self.mean_F), self.whitening_FF)

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0, shrinkage: float = SHRINKAGE) -> Self:
        """Estimate the Gaussian of the inputs; neither labels nor k matter.

        Raises:
            UncertaintyError: If the inputs are too wide.
            CalibrationSetTooSmall: If there are fewer than two rows.
        """
        n, width = train.inputs_BF.shape
        if width > MAX_INPUT_WIDTH:
            raise UncertaintyError(
                f"Expected inputs of at most {MAX_INPUT_WIDTH} numbers for the score `{cls.name}`, but got {width}; "
                "leave it out of `scores`."
            )
        if n < 2:
            raise CalibrationSetTooSmall(f"Expected at least 2 rows for a Mahalanobis score, but got {n}.")
        rows = train.inputs_BF.double()
        mean_F = rows.mean(0)
        return cls(mean_F, _whitening(rows - mean_F, shrinkage).float())

    def score(self, outputs: Outputs) -> Tensor:
        """Squared distance, ``[B]`` in float64."""
        centred_BF = _centred(outputs.deterministic.inputs_BF, self.mean_F)
        return _product(centred_BF, self.whitening_FF).double().square().sum(-1)

    def discount(self, rank_B: Tensor) -> Tensor:
        """Ranks ``[B]``, lowered below 1 as `BACKSTOP_COST` says."""
        return torch.where(rank_B < 1, 1 - BACKSTOP_COST * (1 - rank_B), rank_B)


@dataclass(frozen=True)
class RelativeMahalanobis(Score):
    """min_c MD_c(h) - MD_0(h): are the features farther from every class than from the data as a whole?

    MD_c uses the class means and one covariance shared by the classes, MD_0 the mean and covariance of all rows.

    Attributes:
        mean_F: Mean of all rows, float64.
        class_means_CF: Class means, less ``mean_F``, whitened.
        class_whitening_FF: W with W W^T = inverse of the shared covariance.
        whitening_FF: W for the covariance of all rows.

    Source: Ren 2021.
    """

    name = "relative_mahalanobis"
    reason = UNFAMILIAR

    mean_F: Tensor
    class_means_CF: Tensor
    class_whitening_FF: Tensor
    whitening_FF: Tensor

    def __post_init__(self) -> None:
        """Refuse tensors that do not belong to one number of features."""
        _check_widths(len(self.mean_F), self.class_whitening_FF, self.whitening_FF)
        if self.class_means_CF.shape[1] != len(self.mean_F):
            raise UncertaintyError(
                f"Expected class means of {len(self.mean_F)} features, but got {list(self.class_means_CF.shape)}."
            )

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0, shrinkage: float = SHRINKAGE) -> Self:
        """Estimate both Gaussians of the penultimate features; every class that occurs must occur at least twice.

        Raises:
            NoFeatures: If the network offers none.
            CalibrationSetTooSmall: If there are no rows, or a class has fewer than two.
        """
        if not len(labels_N):
            raise CalibrationSetTooSmall("Expected training rows for the Mahalanobis score, but got none.")
        classes, index_N, counts_C = torch.unique(labels_N, return_inverse=True, return_counts=True)
        if int(counts_C.min()) < 2:
            rare = int(classes[counts_C.argmin()])
            raise CalibrationSetTooSmall(
                f"Expected at least 2 training rows of every class for the Mahalanobis score, but class {rare} has "
                f"{int(counts_C.min())}; add rows or drop the class."
            )
        features_NF = train.features().double()
        mean_F = features_NF.mean(0)
        centred = features_NF - mean_F
        means_CF = centred.new_zeros((len(classes), centred.shape[1]))
        means_CF.index_add_(0, index_N, centred).div_(counts_C[:, None])
        class_whitening_FF = _whitening(centred - means_CF[index_N], shrinkage)
        return cls(
            mean_F,
            (means_CF @ class_whitening_FF).float(),
            class_whitening_FF.float(),
            _whitening(centred, shrinkage).float(),
        )

    def score(self, outputs: Outputs) -> Tensor:
        """Relative squared distance, ``[B]`` in float64; negative inside the classes."""
        centred_BF = _centred(outputs.deterministic.features(), self.mean_F)
        differences_BCF = _product(centred_BF, self.class_whitening_FF).unsqueeze(1) - self.class_means_CF
        # Both terms grow with the square of the input and are subtracted: that needs the longer type.
        to_classes_BC = differences_BCF.double().square().sum(-1)
        to_all_B = _product(centred_BF, self.whitening_FF).double().square().sum(-1)
        return to_classes_BC.amin(-1) - to_all_B


def _centred(rows_BF: Tensor, mean_F: Tensor) -> Tensor:
    """Rows less their mean, subtracted in double precision, in single: what whitening takes."""
    return (rows_BF.double() - mean_F).float()


def _product(rows_BF: Tensor, matrix_FF: Tensor) -> Tensor:
    """Rows times a matrix, as those of `ROW_BLOCK`: the matrix library adds up otherwise where there are few."""
    rows = len(rows_BF)
    return (F.pad(rows_BF, (0, 0, 0, -rows % ROW_BLOCK)) @ matrix_FF)[:rows]


def _whitening(centred_NF: Tensor, shrinkage: float) -> Tensor:
    covariance_FF = centred_NF.T @ centred_NF / len(centred_NF)
    # Where no axis varies at all, the smallest number still makes an inverse.
    ridge = shrinkage * covariance_FF.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
    covariance_FF.diagonal().add_(ridge)
    eigenvalues_F, vectors_FF = torch.linalg.eigh(covariance_FF)
    whitening_FF: Tensor = vectors_FF / eigenvalues_F.sqrt()
    return whitening_FF


def _check_widths(width: int, *matrices_FF: Tensor) -> None:
    shapes = [list(matrix.shape) for matrix in matrices_FF]
    if any(shape != [width, width] for shape in shapes):
        raise UncertaintyError(f"Expected whitening matrices of {width} x {width}, the mean's width, but got {shapes}.")
