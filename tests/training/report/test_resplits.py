"""Resplits, against scipy's law and the product's own calibration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import betabinom, kstest

from dubio.training.report.resplits import beta_binomial, resplit, resplit_label_sets
from dubio.uncertainty import Calibration
from dubio.uncertainty.detection.label_sets import LabelSets


@pytest.mark.parametrize(("n", "a", "b"), [(10, 2, 9), (216, 6, 210), (1, 1, 1)])
def test_the_law_is_scipys(n: int, a: float, b: float):
    np.testing.assert_allclose(beta_binomial(n, a, b), betabinom.pmf(np.arange(n + 1), n, a, b), rtol=1e-8, atol=1e-12)


def test_false_alarms_are_those_of_a_calibration_on_the_same_rows():
    scores = np.random.default_rng(0).normal(size=300)
    drawn = resplit(scores, 180, 0.1, 0.1, count=20, seed=4)
    generator = np.random.default_rng(4)
    for counted in drawn.false_alarms_R:
        mixed = scores[generator.permutation(300)]
        calibration = Calibration.fit(torch.from_numpy(mixed[:180].copy()), 0.1, 0.1)
        p_values = calibration.p_value(torch.from_numpy(mixed[180:].copy()))
        assert counted == int((p_values <= calibration.level).sum())
    assert (drawn.calibration, drawn.measured, drawn.alarms) == (180, 120, round(calibration.level * 181))
    assert drawn.within == (drawn.false_alarms_R <= 12).mean()
    assert drawn.due == pytest.approx(betabinom.cdf(12, 120, drawn.alarms, 181 - drawn.alarms))


def test_over_resplits_they_follow_the_law():
    scores = np.random.default_rng(1).normal(size=2000)
    drawn = resplit(scores, 1000, 0.05, 0.05, count=1000)
    law = betabinom(1000, drawn.alarms, 1001 - drawn.alarms)
    # A test for continuous laws, once the counts are spread out within their steps.
    spread = drawn.false_alarms_R - np.random.default_rng(2).random(1000)
    steps = law.cdf(drawn.false_alarms_R - 1) + law.pmf(drawn.false_alarms_R) * (spread - (drawn.false_alarms_R - 1))
    assert kstest(steps, "uniform").pvalue > 0.01


def test_equal_scores_give_fewer_false_alarms():
    scores = np.repeat([0.0, 1.0], [1700, 300])
    assert resplit(scores, 1000, 0.05, 0.05, count=50).false_alarms_R.max() == 0


def test_missed_rows_are_those_of_label_sets_calibrated_on_the_same_rows():
    draws = np.random.default_rng(3)
    probs = torch.from_numpy(draws.dirichlet(np.ones(4), size=150))
    labels = torch.from_numpy(draws.integers(0, 4, 150))
    scores = (1 - probs).gather(1, labels.unsqueeze(1)).squeeze(1).numpy()
    drawn = resplit_label_sets(scores, 90, 0.9, count=20, seed=4)
    generator = np.random.default_rng(4)
    for counted in drawn.false_alarms_R:
        mixed = torch.from_numpy(generator.permutation(150))
        rule = LabelSets("lac", "all", 0.9).calibrate(probs[mixed[:90]], labels[mixed[:90]])
        missed = torch.from_numpy(scores)[mixed[90:]] > rule.quantiles_G
        assert counted == int(missed.sum())
    assert drawn.alarms == 91 - int(np.ceil(91 * 0.9))
    assert drawn.due == pytest.approx(betabinom.cdf(6, 60, drawn.alarms, 91 - drawn.alarms))
    assert drawn.within == (drawn.false_alarms_R <= 6).mean()


def test_too_few_rows_have_no_label_sets_to_draw():
    assert resplit_label_sets(np.arange(40.0), 18, 0.95) is None
    assert resplit_label_sets(np.arange(40.0), 19, 0.95).alarms == 1
