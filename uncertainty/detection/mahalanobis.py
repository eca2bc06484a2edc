"""Mahalanobis distances: how far a row is from Gaussians fitted to the training data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError


@dataclass(frozen=True)
class Mahalanobis:
    """Squared distance (h - mu)^T Sigma^-1 (h - mu) from one Gaussian fitted to all rows.

    On inputs it sees what the network has learned to ignore: features that were trained to tell the classes apart
    need not tell strangers from the data at all.

    Attributes:
        mean_F: mean of the rows.
        whitening_FF: W with W W^T = Sigma^-1.
    """

    mean_F: Tensor
    whitening_FF: Tensor

    def __post_init__(self) -> None:
        """Refuse tensors that do not belong to one number of features."""
        _check_widths(len(self.mean_F), self.whitening_FF)

    @classmethod
    def fit(cls, rows_NF: Tensor, shrinkage: float = 1e-3) -> Mahalanobis:
        """Estimate the Gaussian.

        Args:
            rows_NF: at least two training rows.
            shrinkage: share of the mean variance that is added to every axis, so that one that never varies (a
                singular covariance) keeps a finite inverse.

        Raises:
            CalibrationSetTooSmall: fewer than two rows.
        """
        if len(rows_NF) < 2:
            raise CalibrationSetTooSmall(f"Expected at least 2 rows for a Mahalanobis score, but got {len(rows_NF)}.")
        rows = rows_NF.double()
        mean_F = rows.mean(0)
        return cls(mean_F.float(), _whitening(rows - mean_F, shrinkage).float())

    def __call__(self, rows_BF: Tensor) -> Tensor:
        """Squared distance, ``[B]``, in float64."""
        return ((rows_BF - self.mean_F) @ self.whitening_FF).double().square().sum(-1)


@dataclass(frozen=True)
class RelativeMahalanobis:
    """min_c MD_c(h) - MD_0(h): farther from every class than from the data as a whole? (Ren 2021)

    MD_c uses the class means and one covariance shared by the classes, MD_0 the mean and covariance of all rows.

    Attributes:
        mean_F: mean of all rows.
        class_means_CF: class means, less ``mean_F``, whitened.
        class_whitening_FF: W with W W^T = inverse of the shared covariance.
        whitening_FF: W for the covariance of all rows.
    """

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
    def fit(cls, features_NF: Tensor, labels_N: Tensor, shrinkage: float = 1e-3) -> RelativeMahalanobis:
        """Estimate both Gaussians.

        Args:
            features_NF: penultimate features of training rows.
            labels_N: their classes; every class that occurs must occur at least twice.
            shrinkage: as for :meth:`Mahalanobis.fit`.

        Raises:
            CalibrationSetTooSmall: there are no rows, or a class has fewer than two.
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
        mean_F = features_NF.double().mean(0)
        centred = features_NF.double() - mean_F
        means_CF = torch.zeros(len(classes), centred.shape[1], dtype=torch.float64, device=centred.device)
        means_CF.index_add_(0, index_N, centred).div_(counts_C[:, None])
        class_whitening_FF = _whitening(centred - means_CF[index_N], shrinkage)
        return cls(
            mean_F.float(),
            (means_CF @ class_whitening_FF).float(),
            class_whitening_FF.float(),
            _whitening(centred, shrinkage).float(),
        )

    def __call__(self, features_BF: Tensor) -> Tensor:
        """Relative squared distance, ``[B]`` in float64; negative inside the classes."""
        centred_BF = features_BF - self.mean_F
        differences_BCF = (centred_BF @ self.class_whitening_FF).unsqueeze(1) - self.class_means_CF
        # Both terms grow with the square of the input and are subtracted: that needs the longer type.
        to_classes_BC = differences_BCF.double().square().sum(-1)
        to_all_B = (centred_BF @ self.whitening_FF).double().square().sum(-1)
        return to_classes_BC.amin(-1) - to_all_B


def _whitening(centred_NF: Tensor, shrinkage: float) -> Tensor:
    covariance_FF = centred_NF.T @ centred_NF / len(centred_NF)
    ridge = shrinkage * covariance_FF.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
    covariance_FF.diagonal().add_(ridge)
    eigenvalues_F, vectors_FF = torch.linalg.eigh(covariance_FF)
    whitening_FF: Tensor = vectors_FF / eigenvalues_F.clamp(min=float(ridge)).sqrt()
    return whitening_FF


def _check_widths(width: int, *matrices_FF: Tensor) -> None:
    shapes = [list(matrix.shape) for matrix in matrices_FF]
    if any(shape != [width, width] for shape in shapes):
        raise UncertaintyError(f"Expected whitening matrices of {width} x {width}, the mean's width, but got {shapes}.")
