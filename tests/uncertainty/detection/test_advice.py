"""What is advised where a risk is not carried is right: by the whole procedure, and by simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from dubio.uncertainty.detection import advice
from dubio.uncertainty.detection.answers import LabelledAnswers
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.promises import AnswerPromises
from dubio.uncertainty.detection.selective import Acceptance, AcceptanceTests
from tests.uncertainty.detection.labelled import World, labelled

ALPHA = DELTA = 0.05
WORLD = World(400, hard=0.03)


def _flag(rows: LabelledAnswers) -> Calibration:
    return Calibration.fit(rows.high_N, ALPHA, DELTA)


def _procedure(select: LabelledAnswers, rows: LabelledAnswers, risk: float) -> Acceptance:
    tests = AcceptanceTests.fit(select, len(rows), risk, ALPHA, DELTA, "mc_probability")
    return tests.calibrate(rows, _flag(rows))


@pytest.mark.parametrize(("seed", "hard"), [(0, 0.02), (1, 0.1)])
def test_the_risk_is_the_smallest_that_the_whole_procedure_carries(seed: int, hard: float):
    world, chance = World(400, hard, seed=seed), np.random.default_rng(seed)
    select, rows, asked = world.draw(chance, 60), world.draw(chance, 150), 0.005
    tests = AcceptanceTests.fit(select, 150, asked, ALPHA, DELTA, "mc_probability")
    assert tests.calibrate(rows, _flag(rows)).refusal
    risk = advice.attainable_risk(tests, rows, _flag(rows))
    assert _procedure(select, rows, risk).refusal is None
    for less in advice.RISKS[:: 1 if risk < 0.1 else 3]:
        assert not asked < less < risk or _procedure(select, rows, less).refusal


def test_rows_that_are_always_wrong_carry_no_risk():
    wrong = labelled(np.full(200, 0.9), np.ones(200, dtype=bool), np.random.default_rng(0).normal(size=200))
    tests = AcceptanceTests.fit(wrong, 200, 0.02, ALPHA, DELTA)
    assert advice.attainable_risk(tests, wrong, _flag(wrong)) == 1
    assert advice.rows_due(tests, wrong, _flag(wrong)) == 0
    same = labelled(np.full(200, 0.9), np.zeros(200, dtype=bool), np.zeros(200))
    tests = AcceptanceTests.fit(same, 200, 0.02, ALPHA, DELTA)  # no score tells rows apart: all may be flagged
    assert (advice.attainable_risk(tests, same, _flag(same)), advice.rows_due(tests, same, _flag(same))) == (1, 0)


def test_a_promise_of_the_advised_risk_is_broken_about_as_seldom_as_it_may_be():
    """The risk is read off the rows that then carry it, so the bound is not exact any more."""
    chance, draws, broken = np.random.default_rng(0), 20, 0
    for draw in range(draws):
        if draw % 10 == 0:
            select = WORLD.draw(chance, 100)
            tests = AcceptanceTests.fit(select, 200, 0.001, ALPHA, DELTA, "mc_probability")
        rows = WORLD.draw(chance, 200)
        risk = advice.attainable_risk(tests, rows, _flag(rows))
        broken += WORLD.true_risk(tests.at(risk).calibrate(rows, _flag(rows)))[0] > risk
    assert binom.sf(broken - 1, draws, 1.5 * DELTA) > 0.01, f"{broken} of {draws}"


@pytest.mark.parametrize("error", [0.001, 0.008])
def test_so_many_rows_carry_the_risk_as_often_as_said_and_half_of_them_do_not(error: float):
    """One kind of answers, of which so many are wrong: the law of the test is the binomial."""

    def draw(chance: np.random.Generator, rows: int, wrong: int) -> LabelledAnswers:
        return labelled(np.full(rows, 0.9), chance.permutation(rows) < wrong, chance.normal(size=rows))

    chance = np.random.default_rng(0)
    rows = draw(chance, 125, round(error * 125))  # 0 and 1 of 125
    tests = AcceptanceTests.fit(draw(chance, 500, 0), 125, 0.02, ALPHA, DELTA, "mc_probability")
    due = advice.rows_due(tests, rows, _flag(rows))
    _, accepted_T, wrong_T = tests.count(rows, _flag(rows))
    share, seen = int(accepted_T[0]) / 125, int(wrong_T[0]) / int(accepted_T[0])

    def carried(rows: np.ndarray) -> np.ndarray:
        accepted = np.round(share * rows)
        most = binom.ppf(DELTA, accepted, 0.02)
        most -= binom.cdf(most, accepted, 0.02) > DELTA
        return np.where(most >= 0, binom.cdf(most, accepted, seen), 0.0)

    assert carried(np.array([due]))[0] >= advice.LIKELY
    # More rows help only by steps: some fewer may do, but not many fewer.
    assert carried(np.arange(min(126, due - 1), max(int(0.8 * due), 127))).max() < advice.LIKELY


def test_no_larger_risk_is_advised_than_one_that_is_promised_anyway():
    chance = np.random.default_rng(3)
    select, rows = WORLD.draw(chance, 60), WORLD.draw(chance, 200)
    kept = _procedure(select, rows, 0.3)
    assert kept.refusal is None
    found = AnswerPromises.fit(select, rows, _flag(rows), (0.001,)).acceptances[0]
    assert found.risk_due in advice.RISKS
    between = round(found.risk_due - 0.0004, 4)  # of more than two digits, so that it is not among those that are tried
    for risks in ((0.001, between, 0.3), (0.3, between, 0.001)):
        told = {each.risk: each for each in AnswerPromises.fit(select, rows, _flag(rows), risks).acceptances}
        due = between if told[between].refusal is None else found.risk_due
        assert told[0.001].risk_due == due


def test_advice_names_what_there_is():
    refused = Acceptance(0.02, DELTA, "probability", rows=50, refusal="too_few_rows", rows_due=400, risk_due=0.1)
    more = "a risk of 0.02 takes about 400 calibration rows instead of 50"
    assert refused.advice() == f"these rows carry a risk of 0.1, and {more}"
    assert replace(refused, risk_due=1.0).advice() == more
    assert replace(refused, risk_due=1.0, rows_due=0).advice() == "a risk of 0.02 takes a model that errs less"
