"""Ranks among the select scores: one scale for scores of different kinds, on which they add up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        inner_PM: Their select scores without the smallest and the largest, ascending, padded with infinity.
        low_PN: Where each interval between two select scores begins; N is M + 1, as NaN lies behind all.
        width_PN: How wide each interval is.
        last_P1: How many intervals there are.
        largest_P1: The largest select score,
        log_n_P1: and its rank.
        spread_P1: From the middle select score to the largest.
    """

    inner_PM: Tensor
    low_PN: Tensor
    width_PN: Tensor
    last_P1: Tensor
    largest_P1: Tensor
    log_n_P1: Tensor
    spread_P1: Tensor

    @classmethod
    def of(cls, ranks: Sequence[Ranks]) -> RankTable:
        """The table of at least one score's ranks."""
        scores = [each.scores_N for each in ranks]
        longest = max(map(len, scores))

        def stacked(rows: Iterable[Tensor], columns: int, filled: float) -> Tensor:
            return torch.stack([F.pad(row, (0, columns - len(row)), value=filled) for row in rows])

        last_P1 = torch.tensor([[len(each) - 1] for each in scores], device=scores[0].device).double()
        return cls(
            inner_PM=stacked((each[1:-1] for each in scores), longest - 1, torch.inf),
            low_PN=stacked((each[:-1] for each in scores), longest, 0.0),
            width_PN=stacked((each.diff() for each in scores), longest, 1.0),
            last_P1=last_P1,
            largest_P1=torch.stack([each[-1:] for each in scores]),
            log_n_P1=last_P1.log1p(),
            spread_P1=torch.stack([each[-1:] - each[(len(each) - 1) // 2] for each in scores]),
        )

    def __call__(self, scores_PB: Tensor) -> Tensor:
        """Ranks ``[P, B]`` in float64; see `Ranks`."""
        scores_PB = scores_PB.double()
        inside_PB = scores_PB.minimum(self.largest_P1)
        place_PB = torch.searchsorted(self.inner_PM, inside_PB)
        share_PB = (inside_PB - self.low_PN.gather(1, place_PB)) / self.width_PN.gather(1, place_PB)
        larger_PB = self.last_P1 - (place_PB + share_PB.clamp_(min=0))
        beyond_PB = (scores_PB - self.largest_P1).clamp_(min=0).div_(self.spread_P1).log1p_()
        return torch.addcmul(self.log_n_P1, self.log_n_P1, beyond_PB).sub_(larger_PB.log1p_())


def composite(ranks_SB: Tensor) -> Tensor:
    """The composite score of B inputs, ``[B]``: the sum of the ranks of S scores, in nats."""
    return ranks_SB.sum(0)
