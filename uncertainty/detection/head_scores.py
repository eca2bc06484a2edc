"""Head scores: what the features say, seen with the layer that makes logits of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dubio.uncertainty.detection.measures import product
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.scores import UNFAMILIAR, Score
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError

REACT_QUANTILE = 0.9  # the paper's


class FeatureNorm(Score):
    """-|h|: strangers have short features."""

    name = "feature_norm"
    reason = UNFAMILIAR

    def score(self, outputs: Outputs) -> Tensor:
        length_B: Tensor = torch.linalg.vector_norm(outputs.deterministic.features().double(), dim=-1)
        return -length_B


@dataclass(frozen=True)
class BoundaryDistance(Score):
    """-mean_c |f_y - f_c| / |w_y - w_c| / |h - mu|, over the classes c other than the predicted one y.

    The first fraction is how far the features are from the boundary between two classes, in their own space.

    Attributes:
        mean_F: mu, mean of the training features, float64.
        gaps_CC: |w_a - w_b| of the head's rows, with 1 on the diagonal.

    Source: Liu and Qin 2024 (fDBD).
    """

    name = "fdbd"

    mean_F: Tensor
    gaps_CC: Tensor

    def __post_init__(self) -> None:
        """Refuse gaps that no two rows can have."""
        if self.gaps_CC.shape[0] != self.gaps_CC.shape[1] or not bool((self.gaps_CC > 0).all()):
            raise UncertaintyError(
                f"Expected a square matrix of positive distances between the head's rows for the score `{self.name}`, "
                f"but got {list(self.gaps_CC.shape)}, the smallest {float(self.gaps_CC.min()):g}; two classes whose "
                "rows are equal have no boundary: leave the score out of `scores`."
            )

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0) -> Self:
        """Take the head's rows and the mean of the features; the labels do not matter.

        Raises:
            NoFeatures: If the network offers none.
            CalibrationSetTooSmall: If there are no rows.
            UncertaintyError: If two classes have the same row in the head.
        """
        _require_rows(train, cls.name)
        weight_CF = train.head().weight_CF
        gaps_CC = torch.cdist(weight_CF, weight_CF, compute_mode="donot_use_mm_for_euclid_dist")
        gaps_CC.fill_diagonal_(1.0)
        return cls(train.features().double().mean(0), gaps_CC)

    def score(self, outputs: Outputs) -> Tensor:
        """Negative relative distance, ``[B]`` in float64."""
        logits_BC = outputs.deterministic.logits_BC.double()
        largest_B1, predicted_B1 = logits_BC.max(-1, keepdim=True)
        distances_BC = (largest_B1 - logits_BC) / self.gaps_CC[predicted_B1.squeeze(-1)]
        mean_B = distances_BC.sum(-1) / max(logits_BC.shape[-1] - 1, 1)
        length_B: Tensor = torch.linalg.vector_norm(outputs.deterministic.features().double() - self.mean_F, dim=-1)
        return -mean_B / length_B.clamp(min=torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class RectifiedActivations(Score):
    """Energy -logsumexp(W min(h, c) + b), where c is the training features' quantile .9.

    Attributes:
        weight_CF: W.
        bias_C: b.
        clip: c.

    Source: Sun 2021 (ReAct).
    """

    name = "react"

    weight_CF: Tensor
    bias_C: Tensor
    clip: float

    def __post_init__(self) -> None:
        """Refuse a head whose parts do not belong together."""
        if len(self.bias_C) != len(self.weight_CF):
            raise UncertaintyError(f"Expected one bias a class, but got {len(self.bias_C)} for {len(self.weight_CF)}.")

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0) -> Self:
        """Take the head, and the smallest activation that 90% of all are not above; the labels do not matter.

        Raises:
            NoFeatures: If the network offers none.
            CalibrationSetTooSmall: If there are no rows.
        """
        _require_rows(train, cls.name)
        activations_N, head = train.features().flatten(), train.head()
        clip = activations_N.kthvalue(math.ceil(REACT_QUANTILE * len(activations_N))).values
        return cls(head.weight_CF, head.bias_C, float(clip))

    def score(self, outputs: Outputs) -> Tensor:
        features_BF = outputs.deterministic.features().double().clamp(max=self.clip)
        return -(product(features_BF, self.weight_CF.T) + self.bias_C).logsumexp(-1)


def _require_rows(train: DeterministicPass, name: str) -> None:
    if not len(train.logits_BC):
        raise CalibrationSetTooSmall(f"Expected training rows for the score `{name}`, but got none.")
