"""Single scores: how strange an input is to each score alone, for who asks why it was flagged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dubio.uncertainty.detection.detector import Detector
from dubio.uncertainty.detection.outputs import Outputs
from dubio.uncertainty.detection.rounding import Rounding
from dubio.uncertainty.errors import UncertaintyError


@dataclass(frozen=True)
class SingleScores:
    """The p-values that each score would have if it were the only one.

    They explain a flag and are no part of its promise, which is about the composite: whoever flags where any of them
    is small raises more false alarms than were promised. Those of `AdaptiveSampling` compare ranks among few members
    with ranks among all of them, so they are approximate.

    Attributes:
        ranks_SN: Of the calibration rows by each score, ascending, float64.
    """

    ranks_SN: Tensor

    def __post_init__(self) -> None:
        """Refuse ranks that are not sorted, wherever they were read from."""
        if self.ranks_SN.dtype != torch.float64 or not bool((self.ranks_SN.diff(dim=-1) >= 0).all()):
            raise UncertaintyError(
                f"Expected the calibration rows' ranks in float64 and ascending, but got {self.ranks_SN.dtype} or "
                "another order; calibrate again."
            )

    @classmethod
    def fit(cls, detector: Detector, outputs: Outputs, rounding: Rounding | None = None) -> SingleScores:
        """Rank the calibration rows by each score, with the largest rank that rounding may give.

        Args:
            detector: Fitted.
            outputs: The calibration split.
            rounding: As measured; by default the least.
        """
        rounding = rounding or detector.least_rounding
        highest = [rounding.bounds([score], detector.ranks, outputs)[1] for score in detector.scores]
        return cls(torch.stack(highest).double().cpu().sort(dim=-1).values)

    def p_values(self, ranks_SB: Tensor) -> Tensor:
        """(1 + #{calibration ranks >= r}) / (n + 1), ``[S, B]``; NaN counts as most extreme."""
        n = self.ranks_SN.shape[-1]
        below_SB = torch.searchsorted(self.ranks_SN, ranks_SB.double().nan_to_num(nan=math.inf).contiguous())
        return (1 + n - below_SB).double() / (n + 1)
