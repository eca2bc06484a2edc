"""Feature density: how probable the features are under one full Gaussian a class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dubio.uncertainty.detection.gaussians import SHRINKAGE, class_means, count, spectrum
from dubio.uncertainty.detection.measures import product
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.scores import UNFAMILIAR, Score
from dubio.uncertainty.errors import UncertaintyError

# All covariances together: as many numbers as the largest covariance of the inputs, 64 MiB.
MAX_NUMBERS = 4096**2


@dataclass(frozen=True)
class FeatureDensity(Score):
    """-log sum_c pi_c N(h; mu_c, Sigma_c), with a covariance for each class.

    Attributes:
        means_CF: Class means, float64.
        whitenings_CFF: W_c with W_c W_c^T = Sigma_c^-1.
        offsets_C: log pi_c - log det(2 pi Sigma_c) / 2, float64.

    Source: Mukhoti 2023 (DDU).
    """

    name = "ddu"
    reason = UNFAMILIAR
    fits_classes = True

    means_CF: Tensor
    whitenings_CFF: Tensor
    offsets_C: Tensor

    def __post_init__(self) -> None:
        """Refuse tensors that do not belong to one number of classes and features."""
        classes, width = self.means_CF.shape
        if list(self.whitenings_CFF.shape) != [classes, width, width] or len(self.offsets_C) != classes:
            raise UncertaintyError(
                f"Expected {classes} whitening matrices of {width} x {width} and as many offsets, but got "
                f"{list(self.whitenings_CFF.shape)} and {len(self.offsets_C)}."
            )

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0, shrinkage: float = SHRINKAGE) -> Self:
        """Estimate a Gaussian for each class; a class of fewer rows than features leans on the shrinkage.

        Raises:
            NoFeatures: If the network offers none.
            CalibrationSetTooSmall: If there are no rows, or a class has fewer than two.
            UncertaintyError: If there are too many classes of too many features.
        """
        index_N, counts_C = count(labels_N)
        features_NF = train.features().double()
        numbers = len(counts_C) * features_NF.shape[1] ** 2
        if numbers > MAX_NUMBERS:
            raise UncertaintyError(
                f"Expected covariances of at most {MAX_NUMBERS} numbers for the score `{cls.name}`, but "
                f"{len(counts_C)} classes of {features_NF.shape[1]} features have {numbers}; leave it out of `scores`."
            )
        means_CF = class_means(features_NF, index_N, counts_C)
        spectra = [spectrum(features_NF[index_N == c] - mean_F, shrinkage) for c, mean_F in enumerate(means_CF)]
        log_dets_C = torch.stack([(2 * math.pi * values_F).log().sum() for values_F, *_ in spectra])
        return cls(
            means_CF,
            torch.stack([vectors_FF / values_F.sqrt() for values_F, vectors_FF, _ in spectra]).float(),
            (counts_C.double() / len(labels_N)).log() - log_dets_C / 2,
        )

    def score(self, outputs: Outputs) -> Tensor:
        """Negative log-density, ``[B]`` in float64."""
        centred_CBF = (outputs.deterministic.features().double() - self.means_CF.unsqueeze(1)).float()
        squares_CB = product(centred_CBF, self.whitenings_CFF).double().square().sum(-1)
        return -(self.offsets_C.unsqueeze(1) - squares_CB / 2).logsumexp(0)
