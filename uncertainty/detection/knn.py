"""Deep k-nearest neighbours: how far the features are from those of the training data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from dubio.uncertainty.detection.measures import product, unit_norm
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.scores import UNFAMILIAR, Score
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError


@dataclass(frozen=True)
class Bank(Score):
    """A score that compares features with those of training rows, which it keeps.

    Attributes:
        bank_NF: Features of training rows, float64; a subclass says how they are scaled.
        k: How many neighbours; 50 is the paper's and OpenOOD's default for `NearestNeighbours`.
    """

    reason = UNFAMILIAR

    bank_NF: Tensor
    k: int

    def __post_init__(self) -> None:
        """Refuse a bank that was rounded, and a k that it cannot serve."""
        if self.bank_NF.dtype != torch.float64:
            raise UncertaintyError(
                f"Expected the bank of the nearest-neighbour score in float64, but got {self.bank_NF.dtype}; calibrate "
                "again."
            )
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
        features_NF, logits_NC = train.features(), train.logits_BC
        if len(features_NF) > bank_size:
            chosen = cls.draw(len(features_NF), k, bank_size, seed).to(features_NF.device)
            features_NF, logits_NC = features_NF[chosen], logits_NC[chosen]
        return cls(cls._kept(features_NF, logits_NC), k)

    @staticmethod
    def draw(rows: int, k: int, bank_size: int, seed: int = 0) -> Tensor:
        """Which of so many training rows `fit` keeps, in the order of the bank."""
        if rows <= bank_size:
            return torch.arange(rows)
        generator = torch.Generator(device="cpu").manual_seed(seed)
        return torch.randperm(rows, generator=generator)[: max(bank_size, k)]

    @staticmethod
    def _kept(features_NF: Tensor, logits_NC: Tensor) -> Tensor:
        return unit_norm(features_NF)


class NearestNeighbours(Bank):
    """Distance to the k-th nearest training row among L2-normalised penultimate features.

    Source: Sun 2022.
    """

    name = "neighbours"

    def score(self, outputs: Outputs) -> Tensor:
        """Distance to the k-th neighbour, ``[B]`` in float64, in [0, 2]."""
        features_BF = unit_norm(outputs.deterministic.features())
        kth_B = self._nearest(features_BF, self.k)[:, -1]
        distance_B: Tensor = torch.linalg.vector_norm(features_BF - self.bank_NF[kth_B], dim=-1)
        return distance_B

    def nearest(self, features_BF: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The places in the bank of so many rows that are nearest, or of all, and how far they are, ``[B, count]``."""
        features_BF = unit_norm(features_BF)
        places_BK = self._nearest(features_BF, min(count, len(self.bank_NF)))
        distances_BK = torch.linalg.vector_norm(features_BF.unsqueeze(1) - self.bank_NF[places_BK], dim=-1)
        distances_BK, order_BK = distances_BK.sort(dim=-1, stable=True)
        return places_BK.gather(1, order_BK), distances_BK

    def _nearest(self, features_BF: Tensor, count: int) -> Tensor:
        # |a - b|^2 = |a|^2 - 2 (a.b - |b|^2 / 2) finds the neighbour in one product, but does not say how near it is:
        # what cancels are the digits of small distances, and a difference keeps them.
        closeness_BN = torch.addmm(self._minus_half_squares, features_BF, self.bank_NF.T)
        return closeness_BN.topk(count, dim=-1).indices

    @cached_property
    def _minus_half_squares(self) -> Tensor:
        """-|b|^2 / 2 of every row, ``[N]``: 1/2 but for rows of zeros, which stay zeros."""
        return self.bank_NF.square().sum(-1) / -2


class NearestNeighbourGuidance(Bank):
    """-energy mean_k energy_k cos(h, h_k) over the k training rows where the product is largest.

    The energy is logsumexp(logits); each row of the bank is an L2-normalised feature vector times its energy.

    Source: Park 2023 (NNGuide).
    """

    name = "nnguide"

    def score(self, outputs: Outputs) -> Tensor:
        """The negative guided energy, ``[B]`` in float64."""
        products_BN = product(unit_norm(outputs.deterministic.features()), self.bank_NF.T)
        guidance_B = products_BN.topk(self.k, dim=-1).values.mean(-1)
        return -outputs.deterministic.logits_BC.double().logsumexp(-1) * guidance_B

    @staticmethod
    def _kept(features_NF: Tensor, logits_NC: Tensor) -> Tensor:
        return unit_norm(features_NF) * logits_NC.double().logsumexp(-1, keepdim=True)
