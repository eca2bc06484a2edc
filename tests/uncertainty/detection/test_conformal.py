"""The promise, against scipy's Beta distribution, naive counting and random calibration splits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch import Tensor

from uncertainty.detection.conformal import Calibration, level
from uncertainty.errors import CalibrationSetTooSmall, UncertaintyError


def _scores(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _smallest_k(n: int, alpha: float, delta: float) -> int | None:
    """The smallest k with P(Beta(n+1-k, k) > alpha) <= delta, from scipy."""
    k = np.arange(1, n + 1)
    keeps = beta.sf(alpha, n + 1 - k, k) <= delta
    return int(k[keeps][0]) if keeps.any() else None


@pytest.mark.parametrize("delta", [0.01, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("n", [1, 2, 10, 58, 59, 100, 299, 500, 1234, 5000])
def test_level_is_the_beta_rule(n, alpha, delta):
    k = _smallest_k(n, alpha, delta)
    if k is None:
        with pytest.raises(CalibrationSetTooSmall):
            level(n, alpha, delta)
    else:
        assert level(n, alpha, delta) == (n + 1 - k) / (n + 1)


@pytest.mark.parametrize(
    ("n", "alpha", "k"),
    [(500, 0.05, 484), (1000, 0.05, 962), (5000, 0.05, 4776), (1000, 0.01, 996), (5000, 0.01, 4962)],
)
def test_published_thresholds(n, alpha, k):
    assert level(n, alpha, 0.05) == (n + 1 - k) / (n + 1)


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 59), (0.01, 299)])
def test_the_smallest_calibration_set(alpha, needed):
    assert level(needed, alpha, 0.05) == 1 / (needed + 1)
    with pytest.raises(CalibrationSetTooSmall, match=f"at least {needed} .* but got {needed - 1}"):
        level(needed - 1, alpha, 0.05)


@pytest.mark.parametrize("alpha", [0.5, 0.99])
def test_a_large_calibration_set_does_not_underflow(alpha):
    n = 20_000
    mean_rate = level(n, alpha, 0.05)
    assert alpha - 4 / math.sqrt(n) < mean_rate < alpha


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5, math.nan, math.inf])
def test_rates_outside_the_unit_interval_are_refused(value):
    with pytest.raises(UncertaintyError, match="`alpha`"):
        level(1000, value, 0.05)
    with pytest.raises(UncertaintyError, match="`delta`"):
        level(1000, 0.05, value)


@pytest.mark.parametrize("alpha", [5e-324, 1e-308, 1e-12])
def test_a_vanishing_rate_needs_more_rows_than_there_are(alpha):
    with pytest.raises(CalibrationSetTooSmall):
        level(1000, alpha, 0.05)


def test_p_values_are_counted():
    calibration = Calibration.fit(_scores(200).mul(4).round() / 4)  # with ties
    asked = torch.cat([_scores(300, seed=1), calibration.scores_N, torch.tensor([1e9, -1e9, math.inf, -math.inf])])
    naive = [(1 + sum(s >= score for s in calibration.scores_N.tolist())) / 201 for score in asked.tolist()]
    assert calibration.p_value(asked).tolist() == naive
    assert calibration.p_value(asked).dtype == torch.float64


def test_a_score_that_is_nan_is_the_most_extreme_and_flagged():
    calibration = Calibration.fit(_scores(200))
    assert calibration.p_value(torch.tensor([math.nan])).tolist() == [1 / 201]
    assert calibration.level >= 1 / 201


def test_flagged_means_beyond_the_kth_score():
    calibration = Calibration.fit(_scores(500))
    asked = torch.cat([_scores(2000, seed=2), calibration.scores_N])
    flagged = calibration.p_value(asked) <= calibration.level
    assert torch.equal(flagged, asked > calibration.scores_N[484 - 1])


@pytest.mark.parametrize("decimals", [1, 8])
def test_p_values_of_exchangeable_scores_are_super_uniform(decimals):
    # Every score a fresh calibration set: P(p <= u) <= u holds over both draws. With one decimal there are ties.
    drawn = np.round(np.random.default_rng(0).standard_normal((20_000, 60)), decimals)
    p_values = (1 + (drawn[:, 1:] >= drawn[:, :1]).sum(1)) / 60
    ours = [float(Calibration.fit(torch.tensor(row[1:])).p_value(torch.tensor(row[:1]))) for row in drawn[:300]]
    assert ours == p_values[:300].tolist()
    for u in (1 / 60, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9):
        assert np.mean(p_values <= u) <= u + 4 * math.sqrt(u * (1 - u) / len(drawn))


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_the_realised_rate_is_beta_distributed(alpha):
    # For continuous scores the realised rate given the calibration set is 1 - F(s_(k)) exactly.
    n, draws, generator = 300, 3000, np.random.default_rng(1)
    uniform = torch.tensor(np.sort(generator.random((draws, n)), axis=1))
    k = round((1 - level(n, alpha, 0.05)) * (n + 1))
    rates = 1 - uniform[:, k - 1].numpy()
    due = beta.sf(alpha, n + 1 - k, k)
    assert due <= 0.05
    assert abs(np.mean(rates > alpha) - due) < 4 * math.sqrt(due * (1 - due) / draws)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_calibration_scores_that_are_not_finite_are_refused(poison):
    scores = _scores(100)
    scores[3] = poison
    with pytest.raises(UncertaintyError, match="finite"):
        Calibration.fit(scores)


def test_an_empty_calibration_set_is_refused():
    with pytest.raises(CalibrationSetTooSmall, match="got 0"):
        Calibration.fit(torch.zeros(0))


def test_a_promise_that_its_scores_do_not_carry_is_refused():
    fitted = Calibration.fit(_scores(100))
    with pytest.raises(UncertaintyError, match="`level`"):
        Calibration(fitted.scores_N, fitted.alpha, fitted.delta, fitted.level + 0.01)
    with pytest.raises(UncertaintyError, match="`level`"):
        Calibration(fitted.scores_N, 0.2, fitted.delta, fitted.level)
    with pytest.raises(UncertaintyError, match="ascending"):
        Calibration(fitted.scores_N.flip(0), fitted.alpha, fitted.delta, fitted.level)
