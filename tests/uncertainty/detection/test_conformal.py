"""The promise, against scipy's Beta distribution, naive counting and random calibration splits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.stats import beta
from torch import Tensor

from dubio.uncertainty.detection.conformal import (
    Calibration,
    JointCalibration,
    level,
    rows_needed,
    smallest_alpha,
)
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError


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


@pytest.mark.parametrize("n", [1, 36, 60, 300])
@pytest.mark.parametrize("delta", [0.01, 0.05, 0.5])
def test_the_smallest_rate_that_rows_can_promise(n: int, delta: float):
    least = smallest_alpha(n, delta)
    # Of the largest score as the threshold the rate follows Beta(1, n).
    assert least == pytest.approx(beta.ppf(1 - delta, 1, n))
    assert level(n, least * 1.0001, delta) == 1 / (n + 1)
    assert rows_needed(least * 1.0001, delta) == n
    with pytest.raises(CalibrationSetTooSmall):
        level(n, least * 0.9999, delta)


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


@pytest.mark.parametrize("shares", [[0.5, 0.3, 0.12, 0.05, 0.03], [0.9, 0.052, 0.048], [0.94, 0.06], [0.1] * 10])
def test_of_scores_that_tie_the_rate_is_above_alpha_as_seldom_as_the_binomial_says(shares: list[float]):
    """The rate is a tail of the shares, and above alpha if the smallest tail above alpha has fewer than j rows.

    That tail is larger than alpha, so its rows are as few less often than delta: ties make the promise safer.
    """
    alpha, delta, n, draws = 0.05, 0.05, 300, 2000
    kinds = np.arange(len(shares))
    tails = np.cumsum(shares[::-1])[::-1]  # of each kind and those above it
    flagged_at_most = round(level(n, alpha, delta) * (n + 1)) - 1
    due = scipy.stats.binom.cdf(flagged_at_most, n, tails[tails > alpha + 1e-12].min())
    assert due <= delta
    drawn = np.random.default_rng(2).choice(kinds, (draws, n), p=shares)
    above = 0
    for row in drawn:
        fitted = Calibration.fit(torch.tensor(row, dtype=torch.float64))
        flagged = (fitted.p_value(torch.tensor(kinds, dtype=torch.float64)) <= fitted.level).numpy()
        above += np.dot(flagged, shares) > alpha + 1e-12
    assert abs(above / draws - due) <= 4 * math.sqrt(due * (1 - due) / draws) + 1e-12


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


def calibration(n: int, alpha: float = 0.1, delta: float = 0.1, seed: int = 0) -> Calibration:
    return Calibration.fit(torch.randn(n, generator=torch.Generator().manual_seed(seed)), alpha, delta)


def test_each_gets_its_share_of_the_strictest_promise():
    joint = JointCalibration.fit([calibration(300, 0.1, 0.2), calibration(500, 0.2, 0.1)])
    assert (joint.alpha, joint.delta) == (0.1, 0.1)
    assert joint.levels == (level(300, 0.05, 0.05), level(500, 0.05, 0.05))
    assert joint.level == sum(joint.levels) < 0.1


def test_one_alone_is_unchanged():
    alone = calibration(200)
    joint = JointCalibration.fit([alone])
    p = torch.tensor([[0.001, 0.5, 1.0]], dtype=torch.float64)
    assert joint.levels == (alone.level,)
    torch.testing.assert_close(joint.p_value(p), p[0])


def test_with_equal_levels_it_is_the_smallest_p_value_times_their_number():
    joint = JointCalibration.fit([calibration(300, seed=seed) for seed in range(3)])
    p = torch.rand((3, 100), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(joint.p_value(p), (3 * p.amin(0)).clamp(max=1))


@pytest.mark.parametrize("sizes", [(300, 300), (200, 1000), (150, 400, 3000)])
def test_the_flag_is_raised_exactly_if_some_p_value_is_at_or_below_its_own_level(sizes: tuple[int, ...]):
    joint = JointCalibration.fit([calibration(n) for n in sizes])
    # Every value that a p-value can take near its level, the level itself among them.
    near = [round(own * (n + 1)) + step for own, n in zip(joint.levels, sizes, strict=True) for step in (-1, 0, 1)]
    grid = torch.cartesian_prod(
        *(torch.tensor(sorted({k / (n + 1) for k in near if 0 < k <= n}), dtype=torch.float64) for n in sizes)
    ).T
    levels = torch.tensor(joint.levels, dtype=torch.float64)[:, None]
    flagged = (grid <= levels).any(0)
    assert torch.equal(joint.p_value(grid) <= joint.level, flagged)
    assert flagged.any()
    assert not flagged.all()
    loudest = joint.loudest(grid)
    assert bool((grid <= levels).gather(0, loudest[None])[0][flagged].all())


def test_too_small_a_set_for_its_share_is_refused():
    enough = calibration(30)  # 22 rows do for 10% with 90% confidence; a half of both needs 59
    with pytest.raises(CalibrationSetTooSmall, match="at least 59"):
        JointCalibration.fit([enough, enough])


def test_none_are_refused():
    with pytest.raises(UncertaintyError, match="at least one"):
        JointCalibration.fit([])


@pytest.mark.parametrize("correlation", [0.0, 0.7, 1.0])
def test_the_promise_holds_however_the_scores_depend_on_each_other(correlation: float):
    """Simulation: M normal scores, calibrated on the same rows."""
    alpha, delta, rows, trials, count = 0.1, 0.1, 400, 300, 3
    generator = np.random.default_rng(5)
    covariance = np.full((count, count), correlation) + (1 - correlation) * np.eye(count)
    # Equal or independent scores have a true false-alarm rate in closed form; others are counted.
    fresh = generator.multivariate_normal(np.zeros(count), covariance, 40_000, method="eigh")
    broken = 0
    for _ in range(trials):
        scores = torch.from_numpy(
            generator.multivariate_normal(np.zeros(count), covariance, rows, method="eigh").T.copy()
        )
        calibrations = [Calibration.fit(row, alpha, delta) for row in scores]
        joint = JointCalibration.fit(calibrations)
        thresholds = np.array(
            [
                float(c.scores_N[rows - round(own * (rows + 1))])
                for c, own in zip(calibrations, joint.levels, strict=True)
            ]
        )
        if correlation == 0:
            rate = 1 - scipy.stats.norm.cdf(thresholds).prod()
        elif correlation == 1:
            rate = scipy.stats.norm.sf(thresholds.min())
        else:
            rate = (fresh >= thresholds).any(1).mean()
        broken += rate > alpha
    # The promise: in at most a share delta of the draws. Three standard deviations of the simulation are allowed.
    assert broken / trials <= delta + 3 * np.sqrt(delta * (1 - delta) / trials)


def test_the_thresholds_of_the_simulation_are_those_of_the_p_values():
    joint = JointCalibration.fit([calibration(400), calibration(400, seed=1)])
    one = calibration(400)
    threshold = one.scores_N[400 - round(joint.levels[0] * 401)]
    p_values = one.p_value(torch.stack([torch.nextafter(threshold, threshold + 1), threshold]))
    assert (p_values <= joint.levels[0]).tolist() == [True, False]
