"""Deep k-nearest neighbours: how far the features are from those of the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from dubio.uncertainty.detection.measures import product, unit_norm
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.scores import UNFAMILIAR, Score
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError
from dubio.uncertainty.precision import keeps_single

# So many rows on either side of the k-th are looked at in any case; few inputs have more that are as near as it.
SPARE = 8
# Numbers of the differences that are held at a time, unless one input has more: 1 MiB, what a cache holds.
MAX_DIFFERENCES = 2**17


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

    Single precision finds the rows that may be among the k nearest, and double precision says how near these are.

    Source: Sun 2022.
    """

    name = "neighbours"

    def score(self, outputs: Outputs) -> Tensor:
        """Distance to the k-th neighbour, ``[B]`` in float64, in [0, 2]; the same to the last bit in any batch."""
        features_BF = unit_norm(outputs.deterministic.features())
        return self._distance(features_BF, torch.float32 if keeps_single(features_BF.device) else torch.float64)

    def nearest(self, features_BF: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The places in the bank of so many rows that are nearest, or of all, and how far they are, ``[B, count]``."""
        features_BF = unit_norm(features_BF)
        bank_FN, halves_N = self._transposed[torch.float64]
        places_BK = (features_BF @ bank_FN - halves_N).topk(min(count, len(self.bank_NF))).indices
        distances_BK = torch.linalg.vector_norm(features_BF.unsqueeze(1) - self.bank_NF[places_BK], dim=-1)
        distances_BK, order_BK = distances_BK.sort(dim=-1, stable=True)
        return places_BK.gather(1, order_BK), distances_BK

    def _distance(self, features_BF: Tensor, dtype: torch.dtype) -> Tensor:
        """Distance to the k-th neighbour, of candidates that products in this precision find."""
        bank_FN, halves_N = self._transposed[dtype]
        # |a - b|^2 = |a|^2 - 2 (a.b - |b|^2 / 2): the nearer, the larger.
        closeness_BN = (features_BF.to(dtype) @ bank_FN).sub_(halves_N)
        # Among the candidates for the k-th neighbour; all rows before them are nearer.
        first, last = max(self.k - SPARE, 1), min(self.k + SPARE, len(self.bank_NF))
        found = closeness_BN.topk(last)
        distance_B = self._nearest(features_BF, found.indices[:, first - 1 :], self.k - first + 1)
        margin, kth_B = _margin(closeness_BN, len(bank_FN)), found.values[:, self.k - 1]
        open_B = found.values[:, -1] >= kth_B - margin  # whether there may be more candidates, or
        if first > 1:
            open_B |= found.values[:, first - 2] <= kth_B + margin
        if bool(open_B.any()):
            features_RF = features_BF[open_B]
            if dtype == torch.float32:
                distance_B[open_B] = self._distance(features_RF, torch.float64)
            else:  # as good as copies of one row
                closeness_RN = closeness_BN[open_B]
                most = int((closeness_RN >= (kth_B[open_B] - margin).unsqueeze(1)).sum(1).amax())
                distance_B[open_B] = self._nearest(features_RF, closeness_RN.topk(most).indices, self.k)
        return distance_B

    def _nearest(self, features_BF: Tensor, rows_BW: Tensor, k: int) -> Tensor:
        """The k-th smallest distance to some rows of the bank, ``[B]``.

        A difference keeps the digits of small distances, where what a product sums up cancels.
        """
        width, features = rows_BW.shape[1], self.bank_NF.shape[1]
        inputs = max(1, MAX_DIFFERENCES // (width * features))
        distances = []
        for features_PF, rows_PW in zip(features_BF.split(inputs), rows_BW.split(inputs), strict=True):
            near_PWF = self.bank_NF.index_select(0, rows_PW.flatten()).view(-1, width, features)
            distances.append(torch.linalg.vector_norm(near_PWF.sub_(features_PF.unsqueeze(1)), dim=-1))
        return torch.cat(distances).kthvalue(k).values

    @cached_property
    def _transposed(self) -> Mapping[torch.dtype, tuple[Tensor, Tensor]]:
        """The bank and |b|^2 / 2 of its rows (1/2 but for rows of zeros), as products take them.

        In single precision it is laid out for one input, which then takes half of the time.
        """
        halves_N = self.bank_NF.square().sum(-1) / 2
        return {
            torch.float32: (self.bank_NF.float().T.contiguous(), halves_N.float()),
            torch.float64: (self.bank_NF.T, halves_N),
        }


def _margin(closeness_BN: Tensor, width: int) -> float:
    """By how much the closeness of two rows may come out the wrong way round, whatever the order of the sums.

    Of unit vectors, each factor is rounded by half a step, the product by half a step a summand at most (Higham 2002,
    section 3.1), and the difference by one; that twice. The rest of the 8 is for what is of second order.
    """
    return (width + 8) * torch.finfo(closeness_BN.dtype).eps


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
