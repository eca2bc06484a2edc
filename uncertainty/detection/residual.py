"""Residuals: the part of the features outside a subspace that holds what the training data or the head use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dubio.uncertainty.detection.gaussians import class_means, count
from dubio.uncertainty.detection.measures import product
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.scores import UNFAMILIAR, Score
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError

# From which width of the features on so many principal axes span the subspace; of narrower ones, half of them.
PRINCIPAL = ((2048, 1000), (768, 512))


@dataclass(frozen=True)
class VirtualLogit(Score):
    """alpha |R^T (h - o)| - logsumexp(logits): a virtual class whose logit is the residual, against all others.

    The columns of R are orthogonal to the principal subspace of the training features about o = -W^+ b, and alpha is
    the mean largest logit over the mean length of the residual. Where the features vary in no more axes than the paper
    keeps, half of those are kept.

    Attributes:
        origin_F: o, float64.
        residual_FR: R.
        alpha: Scale of the residual.

    Source: Wang 2022 (ViM).
    """

    name = "vim"
    reason = UNFAMILIAR

    origin_F: Tensor
    residual_FR: Tensor
    alpha: float

    def __post_init__(self) -> None:
        """Refuse axes of another space than the origin's."""
        _check_space(self.origin_F, self.residual_FR)

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0) -> Self:
        """Find the principal subspace; the labels do not matter.

        Raises:
            NoFeatures: If the network offers none.
            CalibrationSetTooSmall: If there are no rows.
            UncertaintyError: If all features are o.
        """
        head, features_NF = train.head(), train.features().double()
        if not len(features_NF):
            raise CalibrationSetTooSmall(f"Expected training rows for the score `{cls.name}`, but got none.")
        origin_F = -torch.linalg.pinv(head.weight_CF) @ head.bias_C
        centred_NF = features_NF - origin_F
        width = features_NF.shape[1]
        values_F, vectors_FF = torch.linalg.eigh(centred_NF.T @ centred_NF / len(centred_NF))
        varying = int((values_F > values_F[-1] * width * torch.finfo(torch.float64).eps).sum())
        kept = next((axes for least, axes in PRINCIPAL if width >= least), width // 2)
        residual_FR = vectors_FF[:, : width - (kept if varying > kept else varying // 2)]
        length = float(torch.linalg.vector_norm(centred_NF @ residual_FR, dim=-1).mean())
        if not length > 0:
            raise UncertaintyError(
                f"Expected features that vary for the score `{cls.name}`, but all are where the head's logits are 0; "
                "leave it out of `scores`."
            )
        return cls(origin_F, residual_FR.float(), float(train.logits_BC.double().amax(-1).mean()) / length)

    def score(self, outputs: Outputs) -> Tensor:
        """The virtual logit less the energy of the others, ``[B]`` in float64."""
        centred_BF = (outputs.deterministic.features().double() - self.origin_F).float()
        length_B = torch.linalg.vector_norm(product(centred_BF, self.residual_FR).double(), dim=-1)
        score_B: Tensor = self.alpha * length_B - outputs.deterministic.logits_BC.double().logsumexp(-1)
        return score_B


@dataclass(frozen=True)
class OrthogonalResidual(Score):
    """-(z(energy) + z(cosine)): how sure the head is, and whether what the head does not see points the usual way.

    The residual r of the features is orthogonal to the rows of W. Its cosine is taken with the mean residual of the
    predicted class. Both terms are standardised on the training rows.

    Attributes:
        mean_F: Mean of the training features, float64.
        residual_FR: Orthogonal axes that the head does not see.
        directions_CR: Mean residual of each class, of length 1; zeros for one that has no rows.
        energy_mean: Of logsumexp(logits), over the training rows.
        energy_std: The same, divisor n; 1 where it does not vary.
        cosine_mean: Of the cosines.
        cosine_std: The same.

    Source: after CORE (arXiv 2603.18290), whose terms these are; the centring is ours.
    """

    name = "core"
    reason = UNFAMILIAR
    fits_classes = True

    mean_F: Tensor
    residual_FR: Tensor
    directions_CR: Tensor
    energy_mean: float
    energy_std: float
    cosine_mean: float
    cosine_std: float

    def __post_init__(self) -> None:
        """Refuse tensors that do not belong together, and spreads that cannot be divided by."""
        _check_space(self.mean_F, self.residual_FR)
        if self.directions_CR.shape[1] != self.residual_FR.shape[1] or min(self.energy_std, self.cosine_std) <= 0:
            raise UncertaintyError(
                f"Expected directions of {self.residual_FR.shape[1]} axes and positive spreads, but got "
                f"{list(self.directions_CR.shape)}, {self.energy_std:g} and {self.cosine_std:g}."
            )

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0) -> Self:
        """Find the head's blind axes and each class's direction in them.

        Raises:
            NoFeatures: If the network offers none.
            CalibrationSetTooSmall: If there are no rows, or a class has fewer than two.
            UncertaintyError: If the head sees every axis of the features.
        """
        index_N, counts_C = count(labels_N)
        features_NF, weight_CF = train.features().double(), train.head().weight_CF
        _, values, rows_FF = torch.linalg.svd(weight_CF, full_matrices=True)
        rank = int((values > values.amax() * max(weight_CF.shape) * torch.finfo(torch.float32).eps).sum())
        if rank == weight_CF.shape[1]:
            raise UncertaintyError(
                f"Expected more features than the {rank} axes that the head sees for the score `{cls.name}`, but got "
                f"{weight_CF.shape[1]}; leave it out of `scores`."
            )
        mean_F, residual_FR = features_NF.mean(0), rows_FF[rank:].T.contiguous()
        means_CR = class_means((features_NF - mean_F) @ residual_FR, index_N, counts_C)
        directions_CR = features_NF.new_zeros((len(weight_CF), means_CR.shape[1]))
        directions_CR[torch.unique(labels_N)] = torch.nn.functional.normalize(means_CR, dim=-1)
        fitted = cls(mean_F, residual_FR.float(), directions_CR, 0.0, 1.0, 0.0, 1.0)
        moments = [number for term_N in fitted._terms(train) for number in _moments(term_N)]
        return cls(mean_F, residual_FR.float(), directions_CR, *moments)

    def score(self, outputs: Outputs) -> Tensor:
        """The negative sum, ``[B]`` in float64."""
        energy_B, cosine_B = self._terms(outputs.deterministic)
        return -((energy_B - self.energy_mean) / self.energy_std + (cosine_B - self.cosine_mean) / self.cosine_std)

    def _terms(self, seen: DeterministicPass) -> tuple[Tensor, Tensor]:
        residual_BR = product((seen.features().double() - self.mean_F).float(), self.residual_FR).double()
        directions_BR = self.directions_CR[seen.logits_BC.argmax(-1)]
        cosine_B = torch.nn.functional.cosine_similarity(residual_BR, directions_BR, dim=-1)
        return seen.logits_BC.double().logsumexp(-1), cosine_B


def _moments(term_N: Tensor) -> tuple[float, float]:
    std = float(term_N.std(correction=0))
    return float(term_N.mean()), std if std > 0 else 1.0


def _check_space(origin_F: Tensor, axes_FR: Tensor) -> None:
    if len(axes_FR) != len(origin_F):
        raise UncertaintyError(f"Expected axes of {len(origin_F)} features, but got {list(axes_FR.shape)}.")
