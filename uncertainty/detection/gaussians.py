"""Gaussians: means and whitening of training rows, and squared distances from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dubio.uncertainty.detection.measures import BLOCK, product
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError

# Share of the mean variance that is added to every axis, so that one that never varies keeps a finite inverse.
SHRINKAGE = 1e-3
# Of what is added to the covariance of all rows, at least this share is added to that within classes: rows that are all
# like their class mean leave it nothing.
LEAST_RIDGE = 1e-9


class Distances(NamedTuple):
    """Squared distances of B rows, ``[B]`` in float64.

    Attributes:
        to_all_B: From the Gaussian of all rows.
        to_nearest_B: From the nearest class.
    """

    to_all_B: Tensor
    to_nearest_B: Tensor


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """One Gaussian of all training rows, and one a class with a mean of its own and a covariance shared by the classes.

    One product gives both distances. With T the covariance of all rows and L its eigenvalues, each with its ridge,
    y = V^T (x - mu) / sqrt(L) has y^T y = (x - mu)^T T^-1 (x - mu). In these coordinates the covariance within classes
    is D - M M^T: D is diagonal, 1 but for the ridges, and M are the class means, weighted by the square roots of the
    classes' shares. So its inverse is D^-1 + P P^T (Woodbury 1950), with P P^T = D^-1 M (I - M^T D^-1 M)^-1 M^T D^-1,
    which has no more columns than there are classes. The squared distance between y and another point is the sum of
    (y_f - m_f)^2 / D_ff and of the squares of P^T (y - m), where nothing is subtracted.

    Attributes:
        mean_F: mu, float64: rows may lie far from 0 and close together.
        whitening_FG: First F columns that give y, then those that give P^T y, then zeros up to a multiple of four.
        precision_F: 1 / D, float64.
        class_means_CG: Class means, less ``mean_F``, whitened, float64.
    """

    mean_F: Tensor
    whitening_FG: Tensor
    precision_F: Tensor
    class_means_CG: Tensor

    def __post_init__(self) -> None:
        """Refuse tensors that do not belong to one number of features."""
        width, columns = len(self.mean_F), self.class_means_CG.shape[1]
        shapes = [list(self.whitening_FG.shape), list(self.precision_F.shape), list(self.class_means_CG.shape)]
        if shapes[:2] != [[width, columns], [width]] or columns < width or columns % BLOCK:
            raise UncertaintyError(
                f"Expected a whitening matrix [{width}, G], {width} precisions and class means [C, G], with G a "
                f"multiple of {BLOCK} and at least {width}, the mean's width, but got {shapes}."
            )

    @classmethod
    def fit(cls, rows_NF: Tensor, labels_N: Tensor, shrinkage: float = SHRINKAGE) -> ClassGaussians:
        """Estimate them; every class that occurs must occur at least twice.

        Raises:
            CalibrationSetTooSmall: If there are no rows, or a class has fewer than two.
        """
        index_N, counts_C = count(labels_N)
        rows_NF = rows_NF.double()
        mean_F = rows_NF.mean(0)
        centred_NF = rows_NF - mean_F
        means_CF = class_means(centred_NF, index_N, counts_C)
        ridge = ridge_of((centred_NF - means_CF[index_N]).square().mean(0), shrinkage)
        eigenvalues_F, vectors_FF, ridge_of_all = spectrum(centred_NF, shrinkage)
        ridge = max(ridge, LEAST_RIDGE * ridge_of_all)
        precision_F = eigenvalues_F / ((eigenvalues_F - ridge_of_all).clamp(min=0) + ridge)
        whitening_FF = vectors_FF / eigenvalues_F.sqrt()
        projection_FP = _projection(means_CF @ whitening_FF, counts_C.double() / len(rows_NF), precision_F)
        whitening_FG = torch.cat([whitening_FF, whitening_FF @ projection_FP], dim=1)
        whitening_FG = F.pad(whitening_FG, (0, -whitening_FG.shape[1] % BLOCK)).float()
        return cls(mean_F, whitening_FG, precision_F, means_CF @ whitening_FG.double())

    def distances(self, rows_BF: Tensor) -> Distances:
        """Squared distances (x - mu)^T T^-1 (x - mu), and the least of (x - mu_c)^T W^-1 (x - mu_c) over classes c,
        with T the covariance of all rows, and W that within classes."""
        white_BG = self._white(rows_BF)
        to_all_B = self._to_all(white_BG)
        # Where there is one class, it is all rows.
        alone = len(self.class_means_CG) == 1
        return Distances(to_all_B, to_all_B if alone else self._to_classes(white_BG).amin(-1))

    def to_all(self, rows_BF: Tensor) -> Tensor:
        """Squared distances from the Gaussian of all rows alone, ``[B]`` in float64."""
        return self._to_all(self._white(rows_BF))

    def to_classes(self, rows_BF: Tensor) -> Tensor:
        """Squared distances from each class, ``[B, C]`` in float64."""
        return self._to_classes(self._white(rows_BF))

    @property
    def whitening(self) -> Tensor:
        """W ``[F, F]`` with W W^T = T^-1."""
        return self.whitening_FG[:, : len(self.mean_F)]

    def _white(self, rows_BF: Tensor) -> Tensor:
        # Both distances grow with the square of the input, and some scores subtract them: that needs the longer type.
        return product(centred(rows_BF, self.mean_F), self.whitening_FG).double()

    def _to_all(self, white_BG: Tensor) -> Tensor:
        squares_B: Tensor = white_BG[:, : len(self.mean_F)].square().sum(-1)
        return squares_B

    def _to_classes(self, white_BG: Tensor) -> Tensor:
        # In double precision |a|^2 - 2 a.b + |b|^2 loses nothing that single precision had, and no [B, C, F] is made.
        precision_G, towards_GC, squares_C = self._to_means
        squares_B1 = (white_BG * white_BG * precision_G).sum(-1, keepdim=True)
        return (squares_B1 - product(white_BG, towards_GC)[:, : len(squares_C)] + squares_C).clamp_(min=0)

    @cached_property
    def _to_means(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the squares of whitened rows count, twice the means, so weighted, and the weighted squares of these."""
        columns = self.class_means_CG.shape[1]
        precision_G = F.pad(self.precision_F, (0, columns - len(self.precision_F)), value=1.0)
        weighted_CG = self.class_means_CG * precision_G
        towards_GC = F.pad(2 * weighted_CG.T, (0, -len(weighted_CG) % BLOCK))
        return precision_G, towards_GC, (weighted_CG * self.class_means_CG).sum(-1)


def _projection(means_CF: Tensor, shares_C: Tensor, precision_F: Tensor) -> Tensor:
    """P ``[F, P]`` of `ClassGaussians`, with as few columns as it takes, from the whitened class means."""
    weighted_FC = (means_CF * shares_C.sqrt().unsqueeze(1)).T
    scaled_FC = weighted_FC * precision_F.unsqueeze(1)
    rest_C, vectors_CC = torch.linalg.eigh(
        torch.eye(len(means_CF), dtype=means_CF.dtype, device=means_CF.device) - weighted_FC.T @ scaled_FC
    )
    # Exactly it is positive, as the covariance is; what rounding left of it may not be.
    projection_FC: Tensor = scaled_FC @ vectors_CC / rest_C.clamp(min=torch.finfo(rest_C.dtype).eps).sqrt()
    if projection_FC.shape[1] <= projection_FC.shape[0]:
        return projection_FC
    left_FF, values_F, _ = torch.linalg.svd(projection_FC, full_matrices=False)
    compressed_FF: Tensor = left_FF * values_F
    return compressed_FF


def count(labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the classes that occur each row is of, ``[N]``, and how many rows each has, ``[C]``.

    Raises:
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
    return index_N, counts_C


def class_means(rows_NF: Tensor, index_N: Tensor, counts_C: Tensor) -> Tensor:
    """Means ``[C, F]`` of the rows of each class."""
    means_CF = rows_NF.new_zeros((len(counts_C), rows_NF.shape[1]))
    return means_CF.index_add_(0, index_N, rows_NF).div_(counts_C[:, None])


def centred(rows_BF: Tensor, mean_F: Tensor) -> Tensor:
    """Rows less their mean, subtracted in double precision, in single: what whitening takes."""
    return (rows_BF.double() - mean_F).float()


def ridge_of(variances_F: Tensor, shrinkage: float) -> float:
    """What is added to every axis: a share of the mean variance."""
    # Where no axis varies at all, the smallest number still makes an inverse.
    return shrinkage * max(float(variances_F.mean()), torch.finfo(torch.float32).tiny)


def spectrum(centred_NF: Tensor, shrinkage: float) -> tuple[Tensor, Tensor, float]:
    """Eigenvalues ``[F]`` of the covariance, `ridge_of` added, its eigenvectors ``[F, F]``, and that ridge."""
    covariance_FF = centred_NF.T @ centred_NF / len(centred_NF)
    ridge = ridge_of(covariance_FF.diagonal(), shrinkage)
    covariance_FF.diagonal().add_(ridge)
    eigenvalues_F, vectors_FF = torch.linalg.eigh(covariance_FF)
    return eigenvalues_F, vectors_FF, ridge
