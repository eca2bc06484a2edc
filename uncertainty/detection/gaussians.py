"""Gaussians: means and whitening of training rows, and squared distances from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dubio.uncertainty.detection.measures import product
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError

# Share of the mean variance that is added to every axis, so that one that never varies keeps a finite inverse.
SHRINKAGE = 1e-3


@dataclass(frozen=True)
class ClassGaussians:
    """One Gaussian a class, with means of their own and one covariance shared by the classes.

    Attributes:
        mean_F: Mean of all rows, float64.
        class_means_CF: Class means, less ``mean_F``, whitened, float64.
        whitening_FF: W with W W^T = inverse of the shared covariance.
    """

    mean_F: Tensor
    class_means_CF: Tensor
    whitening_FF: Tensor

    def __post_init__(self) -> None:
        """Refuse tensors that do not belong to one number of features."""
        check_widths(len(self.mean_F), self.whitening_FF)
        if self.class_means_CF.shape[1] != len(self.mean_F):
            raise UncertaintyError(
                f"Expected class means of {len(self.mean_F)} features, but got {list(self.class_means_CF.shape)}."
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
        whitening_FF = whitening(centred_NF - means_CF[index_N], shrinkage).float()
        return cls(mean_F, means_CF @ whitening_FF.double(), whitening_FF)

    def distances(self, rows_BF: Tensor) -> Tensor:
        """Squared distances (x - mu_c)^T Sigma^-1 (x - mu_c), ``[B, C]`` in float64."""
        white_BF = product(centred(rows_BF, self.mean_F), self.whitening_FF).double()
        # In double precision |a|^2 - 2 a.b + |b|^2 loses nothing that single precision had, and no [B, C, F] is made.
        squares_B1, squares_C = white_BF.square().sum(-1, keepdim=True), self.class_means_CF.square().sum(-1)
        return (squares_B1 - 2 * product(white_BF, self.class_means_CF.T) + squares_C).clamp(min=0)


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


def spectrum(centred_NF: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``[F]`` and eigenvectors ``[F, F]`` of the covariance, its mean variance's share added."""
    covariance_FF = centred_NF.T @ centred_NF / len(centred_NF)
    # Where no axis varies at all, the smallest number still makes an inverse.
    ridge = shrinkage * covariance_FF.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
    covariance_FF.diagonal().add_(ridge)
    eigenvalues_F, vectors_FF = torch.linalg.eigh(covariance_FF)
    return eigenvalues_F, vectors_FF


def whitening(centred_NF: Tensor, shrinkage: float) -> Tensor:
    """W ``[F, F]`` with W W^T = inverse of the covariance."""
    eigenvalues_F, vectors_FF = spectrum(centred_NF, shrinkage)
    return vectors_FF / eigenvalues_F.sqrt()


def check_widths(width: int, *matrices_FF: Tensor) -> None:
    """Refuse matrices that are not of this width.

    Raises:
        UncertaintyError: If one is not.
    """
    shapes = [list(matrix.shape) for matrix in matrices_FF]
    if any(shape != [width, width] for shape in shapes):
        raise UncertaintyError(f"Expected whitening matrices of {width} x {width}, the mean's width, but got {shapes}.")
