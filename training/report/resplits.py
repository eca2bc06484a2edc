"""Resplits: whether the promise is kept as often as its law says, over divisions of the held-out rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dubio.uncertainty.detection.conformal import level
from dubio.uncertainty.detection.label_sets import place

COUNT = 400


@dataclass(frozen=True)
class Resplits:
    """False alarms among the other rows, once so many of them are drawn to calibrate on.

    Attributes:
        calibration: n, how many rows each calibration had.
        measured: m, how many rows each was measured on.
        alarms: What the level allows among the calibration rows.
        false_alarms_R: How many of the m rows were flagged, in each resplit.
        law_m: P(so many false alarms), for 0 to m: Beta-binomial(m, alarms, n + 1 - alarms).
        within: Share of the resplits with at most alpha m false alarms.
        due: The probability of that by the law.
    """

    calibration: int
    measured: int
    alarms: int
    false_alarms_R: npt.NDArray[np.int64]
    law_m: npt.NDArray[np.float64]
    within: float
    due: float


def resplit(
    scores_N: npt.NDArray[np.float64], calibration: int, alpha: float, delta: float, count: int = COUNT, seed: int = 0
) -> Resplits:
    """Calibrate on rows drawn at random and measure on the others, over and over.

    Given the scores, and if no two are equal, the number of false alarms of one such resplit follows the law exactly;
    equal scores make it smaller. The share of resplits within alpha is to be held against what the law gives: m rows
    scatter too, so that it is below 1 - delta although the promise holds.

    Args:
        scores_N: Of rows that were used for nothing else, calibration and test split together.
        calibration: How many to calibrate on.
        alpha: The promise.
        delta: The promise.
        count: How many resplits.
        seed: Draws them.

    Source: Vovk 2012.
    """
    return _resplit(
        scores_N, calibration, round(level(calibration, alpha, delta) * (calibration + 1)), alpha, count, seed
    )


def resplit_label_sets(
    scores_N: npt.NDArray[np.float64], calibration: int, coverage: float, count: int = COUNT, seed: int = 0
) -> Resplits | None:
    """The same of label sets: an alarm is a true class that is missing, of which 1 - coverage is promised.

    Args:
        scores_N: Of the true classes of rows that were used for nothing else.
        calibration: How many to calibrate on.
        coverage: The promise, which is one over the draw of the calibration rows, too: it is kept on average.
        count: How many resplits.
        seed: Draws them.

    Returns:
        None where so few rows give sets of every class.
    """
    missing = calibration + 1 - place(calibration, coverage)
    return _resplit(scores_N, calibration, missing, 1 - coverage, count, seed) if missing > 0 else None


def _resplit(
    scores_N: npt.NDArray[np.float64], calibration: int, alarms: int, alpha: float, count: int, seed: int
) -> Resplits:
    rows, measured = len(scores_N), len(scores_N) - calibration
    generator = np.random.default_rng(seed)
    found = np.empty(count, dtype=np.int64)
    for index in range(count):
        mixed_N = scores_N[generator.permutation(rows)]
        # p <= alarms / (n + 1) says: fewer than `alarms` calibration scores are as large.
        threshold = np.partition(mixed_N[:calibration], calibration - alarms)[calibration - alarms]
        found[index] = (mixed_N[calibration:] > threshold).sum()
    law_m, most = beta_binomial(measured, alarms, calibration + 1 - alarms), math.floor(alpha * measured + 1e-9)
    within = float((found <= most).mean())
    return Resplits(calibration, measured, alarms, found, law_m, within, float(law_m[: most + 1].sum()))


def beta_binomial(n: int, a: float, b: float) -> npt.NDArray[np.float64]:
    """P(k) for k = 0 to n, if each of n draws is a success with one common probability drawn from Beta(a, b)."""

    def log_beta(one: float, other: float) -> float:
        return math.lgamma(one) + math.lgamma(other) - math.lgamma(one + other)

    def log_choose(k: int) -> float:
        return -math.log(n + 1) - log_beta(n - k + 1, k + 1)

    return np.exp([log_choose(k) + log_beta(k + a, n - k + b) - log_beta(a, b) for k in range(n + 1)])
