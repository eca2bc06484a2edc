"""Deep k-nearest neighbours: how far the features are from those of the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.scores import UNFAMILIAR, Score
from dubio.uncertainty.errors import CalibrationSetTooSmall


@dataclass(frozen=True)
class NearestNeighbours(Score):
    """Distance to the k-th nearest training row among L2-normalised penultimate features.

    Attributes:
        bank_NF: L2-normalised features of training rows.
        k: Which neighbour; 50 is the paper's and OpenOOD's default.

    Source: Sun 2022.
    """

    name = "neighbours"
    reason = UNFAMILIAR

    bank_NF: Tensor
    k: int

    def __post_init__(self) -> None:
        """Refuse a k that the bank cannot serve."""
        if not 1 <= self.k <= len(self.bank_NF):
            raise CalibrationSetTooSmall(
                f"Expected at least k = {self.k} training rows for the nearest-neighbour score, but got "
                f"{len(self.bank_NF)}; use more training data or a smaller k (at least 1)."
            )

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 50, bank_size: int = 5000, seed: int = 0) -> Self:
        """Keep at most ``bank_size`` training rows, chosen by a generator of their own; their labels do not matter.

        Raises:
            NoFeatures: If the network offers none.
            CalibrationSetTooSmall: If there are fewer than k rows.
        """
        features_NF = train.features()
        if len(features_NF) > bank_size:
            generator = torch.Generator(device="cpu").manual_seed(seed)
            chosen = torch.randperm(len(features_NF), generator=generator)[: max(bank_size, k)]
            features_NF = features_NF[chosen.to(features_NF.device)]
        return cls(_normalise(features_NF), k)

    def score(self, outputs: Outputs) -> Tensor:
        """Distance to the k-th neighbour, ``[B]``, in [0, 2]."""
        # Unit vectors: |a - b|^2 = 2 - 2 a.b, so the k-th smallest distance is the k-th largest cosine.
        cosine_BN = _normalise(outputs.deterministic.features()) @ self.bank_NF.T
        kth_B = cosine_BN.topk(self.k, dim=-1).values[:, -1]
        return (2 - 2 * kth_B).clamp(min=0).sqrt()


def _normalise(features: Tensor) -> Tensor:
    # Dividing by the largest entry first keeps the sum of squares of a far-out row from overflowing.
    largest = features.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny)
    return torch.nn.functional.normalize(features / largest, dim=-1)
