from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from uncertainty.detection.conformal import Calibration, level
from uncertainty.detection.joint import JointCalibration
from uncertainty.errors import CalibrationSetTooSmall, UncertaintyError


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
