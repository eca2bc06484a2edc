"""The promise of several calibrated detectors together: any of them may raise the flag, the bound still holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uncertainty.detection.conformal import Calibration, level
from uncertainty.errors import UncertaintyError


@dataclass(frozen=True)
class JointCalibration:
    """M calibrations under one promise: P(flagged given in-distribution) <= alpha, with confidence 1 - delta.

    Each calibration gets alpha / M and delta / M. By the union bound the sum of their false-alarm rates is at most
    alpha unless one of their M bounds fails, which happens with probability at most delta. Nothing is assumed about
    how they depend on each other, so they may all be fitted on the same rows.

    Attributes:
        alpha: promised upper bound on the joint false-alarm rate.
        delta: probability, over the draw of the calibration rows, that the bound does not hold.
        levels: of each calibration, for alpha / M and delta / M.
    """

    alpha: float
    delta: float
    levels: tuple[float, ...]

    @classmethod
    def fit(cls, calibrations: Sequence[Calibration]) -> JointCalibration:
        """Split the strictest of the promises over all of them.

        Raises:
            CalibrationSetTooSmall: one has too few scores for its share.
            UncertaintyError: there are none.
        """
        if not calibrations:
            raise UncertaintyError("Expected at least one calibration, but got none.")
        alpha = min(calibration.alpha for calibration in calibrations)
        delta = min(calibration.delta for calibration in calibrations)
        count = len(calibrations)
        levels = tuple(level(len(calibration.scores_N), alpha / count, delta / count) for calibration in calibrations)
        return cls(alpha, delta, levels)

    @property
    def level(self) -> float:
        """The joint p-value at or below which an input is flagged."""
        return sum(self.levels)

    def p_value(self, p_values_MB: Tensor) -> Tensor:
        """The joint p-values ``[B]``: min(1, M times the smallest), where all levels are equal.

        In general p_m counts as p_m / level_m times the sum of the levels (a weighted Bonferroni bound), so that the
        joint p-value is at or below :attr:`level` exactly if some p_m is at or below its own.
        """
        return (self._ratios(p_values_MB).amin(0) * self.level).clamp(max=1)

    def loudest(self, p_values_MB: Tensor) -> Tensor:
        """Which calibration's p-value is smallest for its level, ``[B]``."""
        return self._ratios(p_values_MB).argmin(0)

    def _ratios(self, p_values_MB: Tensor) -> Tensor:
        levels = torch.tensor(self.levels, dtype=p_values_MB.dtype, device=p_values_MB.device)
        return p_values_MB / levels[:, None]
