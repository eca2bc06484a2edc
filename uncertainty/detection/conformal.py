"""The promise: conformal p-values, and the level that keeps the false-alarm rate with confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError


@dataclass(frozen=True)
class Calibration:
    """A calibrated promise: P(flagged given in-distribution) <= alpha, with confidence 1 - delta.

    Attributes:
        scores_N: Calibration scores, ascending, float64.
        alpha: Promised upper bound on the false-alarm rate.
        delta: Probability, over the draw of the calibration set, that the bound does not hold.
        level: An input is flagged if and only if its p-value is at or below this.
    """

    scores_N: Tensor
    alpha: float
    delta: float
    level: float

    def __post_init__(self) -> None:
        """Refuse a promise that its own scores do not carry, wherever it was read from."""
        due = level(len(self.scores_N), self.alpha, self.delta)
        if self.level != due:
            raise UncertaintyError(
                f"Expected `level` to be {due:g} for {len(self.scores_N)} calibration scores, alpha = {self.alpha:g} "
                f"and delta = {self.delta:g}, but got {self.level:g}; calibrate again."
            )
        if not bool((self.scores_N.diff() >= 0).all()):
            raise UncertaintyError("Expected the calibration scores in ascending order; calibrate again.")

    @classmethod
    def fit(cls, scores_N: Tensor, alpha: float = 0.05, delta: float = 0.05) -> Calibration:
        """Sort the calibration scores and find the level.

        Args:
            scores_N: Scores of held-out in-distribution data that was used for nothing else.
            alpha: In (0, 1).
            delta: In (0, 1).

        Raises:
            CalibrationSetTooSmall: If no level keeps the promise with so few scores.
            UncertaintyError: If a score is not finite, or alpha or delta out of range.
        """
        if not bool(torch.isfinite(scores_N).all()):
            raise UncertaintyError("Expected finite calibration scores, but got NaN or infinity; check the data.")
        return cls(scores_N.double().sort().values, alpha, delta, level(len(scores_N), alpha, delta))

    def p_value(self, scores_B: Tensor) -> Tensor:
        """Conformal p-values (1 + #{calibration scores >= s}) / (n + 1), ``[B]``; NaN counts as most extreme."""
        n = len(self.scores_N)
        scores = scores_B.double().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
        below_B = torch.searchsorted(self.scores_N, scores)
        return (1 + n - below_B).double() / (n + 1)


def level(n: int, alpha: float, delta: float) -> float:
    """The largest p-value that is flagged.

    With n calibration scores and threshold s_(k), the k-th smallest, the realised false-alarm rate follows
    Beta(n + 1 - k, k) (Vovk 2012). This takes the smallest k with P(Beta > alpha) <= delta and returns
    (n + 1 - k) / (n + 1).

    Raises:
        CalibrationSetTooSmall: Not even k = n keeps the promise; the error says how many scores would.
        UncertaintyError: If alpha or delta is not in (0, 1).
    """
    for name, value in (("alpha", alpha), ("delta", delta)):
        if not 0 < value < 1:
            raise UncertaintyError(f"Expected `{name}` to be a number in (0, 1), but got {value}.")
    # P(Beta(n+1-k, k) > alpha) = P(Binomial(n, alpha) <= n - k): raise the number of alarms while that stays <= delta.
    alarms, tail = 0, 0.0
    while alarms < n:
        tail += math.exp(_log_binomial(n, alarms, alpha))
        if tail > delta:
            break
        alarms += 1
    if alarms == 0:
        raise CalibrationSetTooSmall(
            f"Expected at least {rows_needed(alpha, delta)} calibration rows for a false-alarm rate of {alpha:g} with "
            f"confidence {1 - delta:g}, but got {n}; give more of them, or a larger alpha or delta."
        )
    return alarms / (n + 1)


def rows_needed(alpha: float, delta: float) -> float:
    """The fewest calibration rows for which `level` finds a level; infinity if no number could count them."""
    rows = math.log(delta) / math.log1p(-alpha)
    return math.ceil(rows) if math.isfinite(rows) else rows


def smallest_alpha(n: int, delta: float) -> float:
    """The smallest false-alarm rate that n calibration rows can promise: the alpha with (1 - alpha)^n = delta."""
    return -math.expm1(math.log(delta) / n)


def _log_binomial(n: int, k: int, p: float) -> float:
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + k * math.log(p) + (n - k) * math.log1p(-p)


@dataclass(frozen=True)
class JointCalibration:
    """M calibrations under one promise: P(flagged given in-distribution) <= alpha, with confidence 1 - delta.

    Each calibration gets alpha / M and delta / M. By the union bound the sum of their false-alarm rates is at most
    alpha unless one of their M bounds fails, which happens with probability at most delta. Nothing is assumed about
    how they depend on each other, so they may all be fitted on the same rows.

    Attributes:
        alpha: Promised upper bound on the joint false-alarm rate.
        delta: Probability, over the draw of the calibration rows, that the bound does not hold.
        levels: Of each calibration, for alpha / M and delta / M.
    """

    alpha: float
    delta: float
    levels: tuple[float, ...]

    @classmethod
    def fit(cls, calibrations: Sequence[Calibration]) -> JointCalibration:
        """Split the strictest of the promises over all of them.

        Raises:
            CalibrationSetTooSmall: If one has too few scores for its share.
            UncertaintyError: If there are none.
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
        joint p-value is at or below `level` exactly if some p_m is at or below its own.
        """
        return (self._ratios(p_values_MB).amin(0) * self.level).clamp(max=1)

    def loudest(self, p_values_MB: Tensor) -> Tensor:
        """Which calibration's p-value is smallest for its level, ``[B]``."""
        return self._ratios(p_values_MB).argmin(0)

    def _ratios(self, p_values_MB: Tensor) -> Tensor:
        levels = torch.tensor(self.levels, dtype=p_values_MB.dtype, device=p_values_MB.device)
        return p_values_MB / levels[:, None]
