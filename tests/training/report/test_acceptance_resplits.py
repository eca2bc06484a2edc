"""Resplits of the second promise, against the product's own rules and against the law."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import binomtest

from dubio.training.report.acceptance_resplits import resplit_acceptance
from dubio.uncertainty.detection.answers import Answers, LabelledAnswers
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.selective import Acceptance, AcceptanceTests


def _rows(count: int, error: float, seed: int, slope: float = 0.0) -> LabelledAnswers:
    """Two classes; an answer is wrong with a probability that falls with its confidence by `slope`."""
    draws = np.random.default_rng(seed)
    top = torch.from_numpy(draws.uniform(0.5, 1, count))
    label = torch.from_numpy(draws.integers(0, 2, count))
    probs = torch.where(label.unsqueeze(1) == torch.arange(2), top.unsqueeze(1), 1 - top.unsqueeze(1))
    chance = error + slope * (0.75 - top)
    wrong = torch.from_numpy(draws.random(count)) < chance
    scores = torch.from_numpy(draws.normal(size=count))
    sure = torch.ones(count, dtype=torch.bool)
    return LabelledAnswers(
        Answers(label, probs, probs), torch.where(wrong, 1 - label, label), scores, scores, sure, 0.0
    )


def _promise(risk: float, delta: float) -> Acceptance:
    return Acceptance(risk=risk, delta=delta, confidence="probability")


def test_rules_are_those_of_a_calibration_on_the_same_rows():
    select, pool = _rows(150, 0.06, 0, 0.2), _rows(400, 0.06, 1, 0.2)
    drawn = resplit_acceptance(select, pool, 240, 0.1, _promise(0.08, 0.1), count=12, seed=4)
    generator = np.random.default_rng(4)
    tests = AcceptanceTests.fit(select, 240, 0.08, 0.1, 0.1, "probability")
    assert (drawn.calibration, drawn.measured) == (240, 160)
    assert drawn.promised_R.any()
    for index in range(12):
        order = generator.permutation(400)
        some, others = order[:240], order[240:]
        calibrating = LabelledAnswers(
            Answers(pool.answers.label_B[some], pool.answers.probs_BC[some], pool.answers.mean_BC[some]),
            pool.labels_N[some],
            pool.low_N[some],
            pool.high_N[some],
            pool.sure_N[some],
            0.0,
        )
        rule = tests.calibrate(calibrating, Calibration.fit(pool.high_N[some], 0.1, 0.1))
        assert bool(drawn.promised_R[index]) == (rule.refusal is None)
        if rule.refusal:
            continue
        confident = pool.answers.probs_BC.amax(1).numpy() >= rule.threshold
        accepted = confident & (pool.high_N.numpy() < rule.familiar)
        wrong = accepted & (pool.answers.label_B != pool.labels_N).numpy()
        assert (drawn.accepted_R[index], drawn.wrong_R[index]) == (accepted[others].sum(), wrong[others].sum())
        assert drawn.broken_R[index] == (wrong.sum() > 0.08 * accepted.sum())
        assert drawn.within_R[index] == (wrong[others].sum() <= 0.08 * accepted[others].sum())


def test_a_promise_that_no_rule_can_keep_is_made_as_seldom_as_delta():
    # Each answer errs a little more often than promised, however confident: every rule breaks the promise.
    select, pool = _rows(150, 0.12, 2), _rows(500, 0.12, 3)
    drawn = resplit_acceptance(select, pool, 250, 0.05, _promise(0.1, 0.1), count=200)
    assert binomtest(int(drawn.broken_R.sum()), 200, 0.1, alternative="greater").pvalue > 0.01


def test_a_model_that_hardly_errs_is_promised_something_in_each_division():
    select, pool = _rows(150, 0.005, 5), _rows(500, 0.005, 6)
    drawn = resplit_acceptance(select, pool, 250, 0.05, _promise(0.05, 0.05), count=20)
    assert drawn.promised_R.all()
    assert not drawn.broken_R.any()
    assert drawn.accepted_R.min() > 200
