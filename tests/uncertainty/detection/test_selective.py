"""The second promise, by simulation of the whole procedure against the exact law, and against scipy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import beta, binom

from dubio.uncertainty.detection import selective
from dubio.uncertainty.detection.answers import CONFIDENCES, Answers, LabelledAnswers
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.selective import (
    ALL,
    REFUSALS,
    TOO_FEW_ROWS,
    TOO_MANY_ERRORS,
    Acceptance,
    AcceptanceTests,
    choose_confidence,
)
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError
from tests.uncertainty.detection.labelled import World, labelled

ALPHA = DELTA = 0.05
DRAWS = 120


WORLDS = {
    "many kinds": World(4000, hard=0.04),
    "ties": World(30, hard=0.04),
    "few kinds": World(6, hard=0.05, seed=3),
    "scores that say nothing": World(1000, hard=0.03, related=False, seed=1),
    "always at the boundary": World(4000, hard=0.021, seed=2),
}


@pytest.mark.parametrize("rows", [160, 1000])
@pytest.mark.parametrize("name", WORLDS)
def test_the_true_risk_is_above_the_promised_one_in_at_most_delta_of_the_draws(name: str, rows: int):
    """The whole procedure: select and calibration rows are drawn, and flag and rule are fitted to the same rows."""
    world, chance, risk = WORLDS[name], np.random.default_rng(rows), 0.03
    broken = given = 0
    for draw in range(DRAWS):
        if draw % 60 == 0:  # the promise holds for any select rows, of which these are a few
            tests = AcceptanceTests.fit(world.draw(chance, 150), rows, risk, ALPHA, DELTA)
        calibration = world.draw(chance, rows)
        flag = Calibration.fit(calibration.high_N, ALPHA, DELTA)
        rule = tests.calibrate(calibration, flag)
        if rule.refusal:
            continue
        given += 1
        true, _ = world.true_risk(rule)
        broken += true > risk
        flagged = flag.p_value(torch.from_numpy(world.score)) <= flag.level
        everything = labelled(world.confidence, np.zeros(len(world.share), dtype=bool), world.score)
        assert not bool((flagged & rule.accepts(everything.answers, everything.high_N)).any())
    assert binom.sf(broken - 1, DRAWS, DELTA) > 0.01, f"{broken} of {DRAWS}"
    if name == "many kinds" and rows == 1000:
        assert given > 0.3 * DRAWS  # the promise is not kept by promising nothing


def test_where_one_threshold_is_tested_the_law_is_that_of_the_binomial():
    """One kind of answers: the rule is given exactly if few enough of the unflagged rows are wrong."""
    rows, risk, true = 400, 0.05, 0.05
    chance = np.random.default_rng(5)
    select = labelled(np.full(200, 0.9), np.zeros(200, dtype=bool), chance.normal(size=200))
    tests = AcceptanceTests.fit(select, rows, risk, ALPHA, DELTA, confidence="mc_probability")
    assert tests.thresholds_T.tolist() == [ALL]
    given = expected = 0.0
    for _ in range(DRAWS):
        calibration = labelled(np.full(rows, 0.9), chance.random(rows) < true, chance.normal(size=rows))
        rule = tests.calibrate(calibration, Calibration.fit(calibration.high_N, ALPHA, DELTA))
        unflagged = int((calibration.high_N < rule.familiar).sum()) if not rule.refusal else 380
        allowed = int(binom.ppf(DELTA, unflagged, risk)) - 1
        allowed += binom.cdf(allowed + 1, unflagged, risk) <= DELTA
        expected += binom.cdf(allowed, unflagged, true) / DRAWS
        given += rule.refusal is None
    assert expected <= DELTA
    assert binom.sf(given - 1, DRAWS, expected) > 0.005
    assert binom.cdf(given, DRAWS, expected) > 0.005


def test_select_rows_that_were_lucky_do_not_leave_nothing_to_accept():
    # They show no error at all, though half of the answers of little confidence are wrong.
    chance = np.random.default_rng(0)
    confidence = chance.uniform(0.4, 1, 600)
    tests = AcceptanceTests.fit(labelled(confidence, np.zeros(600), -confidence), 1800, 0.02, ALPHA, DELTA)
    for _ in range(20):
        confidence = chance.uniform(0.4, 1, 1800)
        calibration = labelled(confidence, (confidence < 0.5) & (chance.random(1800) < 0.5), -confidence)
        rule = tests.calibrate(calibration, Calibration.fit(calibration.high_N, ALPHA, DELTA))
        # Between .5, above which nothing is wrong, and the confidence above which .02 of the answers are.
        assert rule.refusal is None
        assert 0.4 < rule.threshold < 0.5


def test_the_tests_are_those_of_clopper_and_pearson():
    """A test passes exactly where the upper bound on the error rate is at most the risk."""
    for accepted, wrong, risk in [(148, 0, 0.02), (149, 0, 0.02), (236, 1, 0.02), (235, 1, 0.02), (5000, 81, 0.02)]:
        upper = beta.ppf(1 - DELTA, wrong + 1, accepted - wrong)
        assert (selective.binomial_at_most(wrong, accepted, risk) <= DELTA) == (upper <= risk)
        assert selective.binomial_at_most(wrong, accepted, risk) == pytest.approx(
            binom.cdf(wrong, accepted, risk), rel=1e-8
        )


def test_the_rule_is_what_one_would_find_by_hand():
    world, chance = WORLDS["many kinds"], np.random.default_rng(0)
    select, calibration = world.draw(chance, 1000), world.draw(chance, 2000)
    tests = AcceptanceTests.fit(select, 2000, 0.02, ALPHA, DELTA, confidence="mc_probability")
    flag = Calibration.fit(calibration.high_N, ALPHA, DELTA)
    rule = tests.calibrate(calibration, flag)
    threshold = flag.scores_N[2000 - round(flag.level * 2001)]
    assert rule.familiar == max(value for value in tests.familiar_G.tolist() if value <= threshold)
    confidence = calibration.answers.probs_BC[:, 0].numpy()
    unflagged = calibration.high_N.numpy() < rule.familiar
    assert tests.thresholds_T.tolist() == sorted(tests.thresholds_T.tolist(), reverse=True)
    passed = []
    for value in tests.thresholds_T.tolist()[tests.first :]:
        chosen = unflagged & (confidence >= value)
        wrong = int(calibration.labels_N.numpy()[chosen].sum())
        if binom.cdf(wrong, chosen.sum(), 0.02) > DELTA:
            break
        passed.append((value, int(chosen.sum()), wrong))
    assert len(passed) > 1
    assert (rule.threshold, rule.accepted, rule.wrong) == passed[-1]


def test_the_calibration_rows_do_not_move_what_is_tested():
    """Thresholds and confidence come from the select split: other calibration rows choose among the same values."""
    world, chance = WORLDS["ties"], np.random.default_rng(0)
    tests = AcceptanceTests.fit(world.draw(chance, 400), 800, 0.05, ALPHA, DELTA)
    for _ in range(10):
        calibration = world.draw(chance, 800)
        rule = tests.calibrate(calibration, Calibration.fit(calibration.high_N, ALPHA, DELTA))
        assert rule.refusal or rule.threshold in tests.thresholds_T.tolist()
        assert rule.refusal or rule.familiar in tests.familiar_G.tolist()
        assert rule.confidence == tests.confidence


def test_labels_that_differ_are_never_accepted_and_no_error_of_the_rule():
    mean = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]], dtype=torch.float64)
    probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    answers = Answers(probs.argmax(-1), probs, mean)
    rule = Acceptance(0.02, DELTA, "mc_probability", familiar=1.0, threshold=ALL, rows=200, accepted=200)
    assert rule.accepts(answers, torch.zeros(3)).tolist() == [True, False, False]
    rows = LabelledAnswers(answers, torch.tensor([1, 1, 1]), torch.zeros(3), torch.zeros(3), torch.ones(3).bool(), 0.0)
    assert rows.right.tolist() == [False, False, False]
    assert rows.wrong.tolist() == [True, False, False]


def test_a_score_that_is_not_a_number_is_not_accepted():
    answers = labelled(np.array([0.9]), np.array([False]), np.zeros(1)).answers
    rule = Acceptance(0.02, DELTA, "probability", familiar=1.0, threshold=ALL, rows=200, accepted=200)
    assert rule.accepts(answers, torch.tensor([math.nan])).tolist() == [False]


@pytest.mark.parametrize(
    ("rows", "hard", "refusal"), [(100, 0.01, TOO_FEW_ROWS), (148, 0.01, TOO_FEW_ROWS), (1000, 0.5, TOO_MANY_ERRORS)]
)
def test_where_the_rows_cannot_carry_it_the_reason_is_told(rows: int, hard: float, refusal: str):
    world, chance = World(500, hard), np.random.default_rng(0)
    world.risk = np.full(500, hard)  # no confidence tells right from wrong
    tests = AcceptanceTests.fit(world.draw(chance, 300), rows, 0.02, ALPHA, DELTA)
    calibration = world.draw(chance, rows)
    assert tests.calibrate(calibration, Calibration.fit(calibration.high_N, ALPHA, DELTA)).refusal == refusal


def test_scores_that_are_all_the_same_have_no_promise():
    same = labelled(np.full(500, 0.9), np.zeros(500, dtype=bool), np.zeros(500))
    tests = AcceptanceTests.fit(same, 500, 0.02, ALPHA, DELTA)
    assert len(tests.familiar_G) == 0
    assert tests.calibrate(same, Calibration.fit(same.high_N, ALPHA, DELTA)).refusal in REFUSALS


@pytest.mark.parametrize("name", CONFIDENCES)
def test_the_confidence_score_is_the_one_with_the_smallest_area_under_the_risk_coverage_curve(name: str):
    chance = np.random.default_rng(1)
    probs, mean = (torch.from_numpy(chance.dirichlet(np.ones(4), 400)) for _ in range(2))
    mean[:, 0] += 1  # the labels agree
    probs[:, 0] += 1
    answers = Answers(torch.zeros(400, dtype=torch.int64), probs / 2, mean / 2)
    value_N = answers.confidence(name).numpy()
    labels_N = torch.from_numpy((value_N < np.median(value_N)).astype(np.int64))
    assert choose_confidence(answers, labels_N) == name
    by_hand = {
        "mc_probability": mean.max(-1).values / 2,
        "probability": probs.max(-1).values / 2,
        "mc_margin": (mean.sort(-1).values[:, -1] - mean.sort(-1).values[:, -2]) / 2,
        "least_probability": torch.minimum(mean.max(-1).values, probs.max(-1).values) / 2,
    }
    np.testing.assert_allclose(value_N, by_hand[name], atol=1e-12)


FLAG = Calibration.fit(torch.arange(400.0))
RULE = Acceptance(0.02, DELTA, "mc_probability", familiar=380.0, threshold=0.5, rows=400, accepted=300, wrong=1)


def test_a_sound_rule_is_taken():
    RULE.check(FLAG)


@pytest.mark.parametrize(
    "changes",
    [
        {"risk": 0.0},
        {"risk": 1.0},
        {"risk": math.nan},
        {"delta": 0.0},
        {"delta": 1.5},
        {"confidence": "mood"},
        {"refusal": "lazy"},
        {"accepted": 401},
        {"accepted": 10**18, "rows": 10**18},
        {"wrong": -1},
        {"wrong": 2},
        {"accepted": 148, "wrong": 0},
        {"rows": 399},
        {"familiar": 399.5},
        {"familiar": math.nan},
        {"familiar": math.inf},
    ],
)
def test_a_rule_that_does_not_hold_is_refused(changes: dict):
    with pytest.raises(UncertaintyError):
        replace(RULE, **changes).check(FLAG)


def test_too_few_rows_for_the_flag_are_refused():
    rows = labelled(np.full(100, 0.9), np.zeros(100, dtype=bool), np.arange(100.0))
    with pytest.raises(CalibrationSetTooSmall):
        AcceptanceTests.fit(rows, 40, 0.02, ALPHA, DELTA)
