"""Ranks among the select scores: one scale for scores of different kinds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uncertainty.errors import CalibrationSetTooSmall


@dataclass(frozen=True)
class Ranks:
    """Maps a score to its rank among those of the select split, monotonically and without ties.

    Between two select scores the rank is interpolated; beyond the largest it keeps growing (with the logarithm of the
    excess in units of the select scores' spread), and below the smallest it keeps falling. A far input therefore gets
    a larger rank than a near one, however far both are.

    Attributes:
        scores_N: distinct select scores, ascending, float64.
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
            CalibrationSetTooSmall: fewer than two different scores.
        """
        return cls(torch.unique(scores_N.double()))

    def __call__(self, scores_B: Tensor) -> Tensor:
        """Ranks ``[B]`` in float64: 0 at the smallest select score, 1 at the largest, beyond outside."""
        scores = scores_B.double()
        last = len(self.scores_N) - 1
        upper_B = torch.searchsorted(self.scores_N, scores).clamp(1, last)
        low_B, high_B = self.scores_N[upper_B - 1], self.scores_N[upper_B]
        inside_B = (upper_B - 1 + (scores - low_B) / (high_B - low_B)).clamp(0, last) / last
        spread = self.scores_N[-1] - self.scores_N[last // 2]
        above_B = torch.log1p((scores - self.scores_N[-1]).clamp(min=0) / spread)
        below_B = torch.log1p((self.scores_N[0] - scores).clamp(min=0) / spread)
        return inside_B + above_B - below_B
