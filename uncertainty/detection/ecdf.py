"""Ranks among the select scores: one scale for scores of different kinds, on which they add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from dubio.uncertainty.errors import CalibrationSetTooSmall


@dataclass(frozen=True)
class Ranks:
    """Maps a score to its rank among the n of the select split, on a logarithmic scale, in nats.

    The rank is -log p, where p is the share of select scores that are as large or larger: 0 at the smallest, log 2 in
    the middle, log n at the largest. Between two select scores p is interpolated. Beyond the largest the rank keeps
    growing, log n at a time, with the logarithm of the excess in units of the select scores' spread: a far input gets
    a larger rank than a near one, however far both are. Below the smallest it is 0: nothing about an input makes up
    for what is strange about it.

    Source: Fisher 1932, section 21.1, whose combination of independent tests adds these up.

    Attributes:
        scores_N: Distinct select scores, ascending, float64.
    """

    scores_N: Tensor

    def __post_init__(self) -> None:
        """Refuse scores that do not rise: ranks among them would divide by zero."""
        if len(self.scores_N) < 2 or not bool((self.scores_N.diff() > 0).all()):
            raise CalibrationSetTooSmall(
                f"Expected at least 2 different scores on the select split, in ascending order, but got "
                f"{len(self.scores_N)}; use a larger select split, or a score that varies."
            )

    @classmethod
    def fit(cls, scores_N: Tensor) -> Ranks:
        """Sort the select scores; equal ones are kept once.

        Raises:
            CalibrationSetTooSmall: If there are fewer than two different scores.
        """
        return cls(torch.unique(scores_N.double()))

    def __call__(self, scores_B: Tensor) -> Tensor:
        """Ranks ``[B]`` in float64, 0 or more."""
        return self._alone(scores_B.unsqueeze(0)).squeeze(0)

    @cached_property
    def _alone(self) -> RankTable:
        return RankTable.of([self])


@dataclass(frozen=True)
class RankTable:
    """The ranks of P scores side by side: as many operations for all as for one.

    Attributes:
        scores_PN: Their select scores, ascending, each row padded with infinity to the longest.
        last_P1: Where each row ends,
        largest_P1: the score there,
        log_n_P1: and its rank.
        spread_P1: From the middle select score to the largest.
    """

    scores_PN: Tensor
    last_P1: Tensor
    largest_P1: Tensor
    log_n_P1: Tensor
    spread_P1: Tensor

    @classmethod
    def of(cls, ranks: Sequence[Ranks]) -> RankTable:
        """The table of at least one score's ranks."""
        longest = max(len(each.scores_N) for each in ranks)
        rows = [F.pad(each.scores_N, (0, longest - len(each.scores_N)), value=torch.inf) for each in ranks]
        spreads = [each.scores_N[-1] - each.scores_N[(len(each.scores_N) - 1) // 2] for each in ranks]
        last_P1 = torch.tensor([[len(each.scores_N) - 1] for each in ranks], device=rows[0].device)
        scores_PN = torch.stack(rows)
        log_n_P1 = last_P1.double().log1p()
        return cls(scores_PN, last_P1, scores_PN.gather(1, last_P1), log_n_P1, torch.stack(spreads).unsqueeze(1))

    def __call__(self, scores_PB: Tensor) -> Tensor:
        """Ranks ``[P, B]`` in float64; see `Ranks`."""
        scores_PB = scores_PB.double()
        inside_PB = scores_PB.clamp(self.scores_PN[:, :1], self.largest_P1)
        upper_PB = torch.searchsorted(self.scores_PN, inside_PB).clamp(min=1).minimum(self.last_P1)
        low_PB, high_PB = self.scores_PN.gather(1, upper_PB - 1), self.scores_PN.gather(1, upper_PB)
        larger_PB = self.last_P1 - (upper_PB - 1 + (inside_PB - low_PB) / (high_PB - low_PB))
        beyond_PB = (scores_PB - inside_PB).clamp(min=0)
        return self.log_n_P1 * (1 + torch.log1p(beyond_PB / self.spread_P1)) - torch.log1p(larger_PB)


def composite(ranks_SB: Tensor) -> Tensor:
    """The composite score of B inputs, ``[B]``: the sum of the ranks of S scores, in nats."""
    return ranks_SB.sum(0)
