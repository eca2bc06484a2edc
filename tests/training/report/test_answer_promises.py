"""What was measured of both promises, against counting and scipy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import betabinom, binomtest
from torch import Tensor

from dubio.training.evaluation import DETERMINISTIC, MC
from dubio.training.report import answer_promises
from dubio.training.report.acceptance_resplits import AcceptanceResplits
from dubio.training.report.answers import Answers, ask, fitted
from dubio.uncertainty.detection.label_sets import LabelSets
from dubio.uncertainty.detection.selective import Acceptance
from tests.training.report.conftest import Written

Split = tuple[Answers, Tensor]


def _split(written: Written, name: str) -> Split:
    x, labels = written.data.raw(name)
    return ask(written.predictor, x, lambda rows: iter(rows.split(100))), labels


@pytest.fixture(scope="module")
def test(written: Written) -> Split:
    return _split(written, "test")


@pytest.fixture(scope="module")
def calibrated(written: Written) -> Split:
    return _split(written, "calibration")


def _acceptance(written: Written, calibrated: Split, test: Split, promise: Acceptance, select: Split | None = None):
    _, flag = fitted(written.predictor)
    return answer_promises.acceptance(promise, flag, select, calibrated, test, 10)


def test_accepted_and_wrong_rows_are_counted(written: Written, calibrated: Split, test: Split):
    known, labels = test
    familiar = float(known.score_B.double().quantile(0.8))
    rule = Acceptance(0.2, 0.05, "mc_probability", familiar=familiar, threshold=0.6, rows=len(calibrated[1]))
    told, drawn = _acceptance(written, calibrated, test, rule)
    label, mc = (known.probs[name].argmax(1) for name in (DETERMINISTIC, MC))
    accepted = (known.score_B < familiar) & (label == mc) & (known.probs[MC].amax(1) >= 0.6)
    wrong = accepted & (label != labels)
    assert (told.accepted.count, told.accepted.rows) == (int(accepted.sum()), len(labels))
    assert (told.wrong.count, told.wrong.rows) == (int(wrong.sum()), int(accepted.sum()))
    due = binomtest(told.wrong.count, told.wrong.rows).proportion_ci()
    assert (told.wrong.low, told.wrong.high) == pytest.approx((due.low, due.high))
    assert sum(each.count for each in told.wrong_by_class if each) == told.wrong.count
    assert (drawn, told.resplits, told.no_resplits) == (None, None, answer_promises.NO_SELECT)
    assert told.consistent == (due.low <= 0.2)


def test_with_select_rows_there_are_resplits(written: Written, calibrated: Split, test: Split):
    rule = Acceptance(0.2, 0.1, "mc_margin", familiar=1.0, threshold=0.1, rows=len(calibrated[1]))
    told, drawn = _acceptance(written, calibrated, test, rule, _split(written, "select"))
    assert (drawn.calibration, drawn.measured) == (len(calibrated[1]), len(test[1]))
    assert told.resplits.promised == drawn.promised_R.sum()
    assert told.resplits.broken.count == drawn.broken_R.sum()
    assert told.resplits.within.rows == told.resplits.promised
    assert told.no_resplits is None


def test_without_a_promise_the_reason_stands_there(written: Written, calibrated: Split, test: Split):
    rule = Acceptance(0.01, 0.05, "probability", rows=50, refusal="too_few_rows", rows_due=400, risk_due=0.1)
    told, drawn = _acceptance(written, calibrated, test, rule)
    assert (told.reason, drawn, told.accepted, told.wrong, told.consistent, told.resplits) == (
        "too_few_rows",
        *[None] * 5,
    )
    assert "about 400 calibration rows instead of 50" in told.advice


def test_a_promise_that_is_broken_too_often_is_told():
    none, all_ = np.zeros(400, dtype=bool), np.ones(400, dtype=bool)
    counts = np.full(400, 50)
    good = AcceptanceResplits(100, 100, all_, none, counts, counts // 50, all_)
    told = answer_promises.acceptance_resplits(good, 0.05)
    assert (told.consistent, told.mean_accepted, told.mean_wrong) == (True, 0.5, 0.02)
    often = np.arange(400) < 40  # of 400, where 20 are due: 1 in 100 000 by chance
    assert not answer_promises.acceptance_resplits(replace(good, broken_R=often), 0.05).consistent
    nothing = answer_promises.acceptance_resplits(replace(good, promised_R=none, accepted_R=0 * counts), 0.05)
    assert (nothing.within, nothing.mean_wrong) == (None, None)


@pytest.mark.parametrize("score", ["lac", "aps"])
def test_label_sets_cover_what_is_counted_and_the_law_is_scipys(calibrated: Split, test: Split, score: str):
    rule = LabelSets(score, "all", 0.9).calibrate(calibrated[0].probs[MC], calibrated[1])
    told, drawn = answer_promises.label_sets(rule, calibrated, test, [*"0123456789"])
    contains, labels = rule(test[0].probs[MC]).numpy(), test[1].numpy()
    covered = contains[np.arange(len(labels)), labels]
    assert (told.covered.count, told.covered.rows) == (covered.sum(), len(labels))
    assert [each.count for each in told.by_class] == [covered[labels == index].sum() for index in range(10)]
    assert told.sizes == [int((contains.sum(1) == size).sum()) for size in range(1, 11)]
    assert told.mean_size == pytest.approx(contains.sum() / len(labels))
    n, m = len(calibrated[1]), len(labels)
    place = int(np.ceil((n + 1) * 0.9))
    law = betabinom(m, n + 1 - place, place)
    assert told.chance == pytest.approx(law.sf(m - covered.sum() - 1), abs=1e-9)
    assert told.consistent == (told.chance >= 0.025)
    assert told.resplits.due == pytest.approx(law.cdf(int(0.1 * m)), abs=1e-9)
    assert drawn.calibration == n


def test_sets_by_class_have_no_one_law(calibrated: Split, test: Split):
    rule = LabelSets("lac", "class", 0.99).calibrate(calibrated[0].probs[MC], calibrated[1])
    told, drawn = answer_promises.label_sets(rule, calibrated, test, [*"0123456789"])
    assert (told.chance, told.resplits, drawn) == (None, None, None)
    assert "a quantile for each true class" in told.no_resplits
    assert told.unbounded == [*"0123456789"]  # 99 rows of each class would be needed
    assert told.sizes[-1] == len(test[1])


def test_too_few_rows_for_any_set_are_told(calibrated: Split, test: Split):
    few = calibrated[0].probs[MC][:15], calibrated[1][:15]
    rule = LabelSets("lac", "all", 0.95).calibrate(*few)
    answers = replace(calibrated[0], probs={MC: few[0]})
    told, drawn = answer_promises.label_sets(rule, (answers, few[1]), test, [*"0123456789"])
    assert (told.unbounded, told.resplits, drawn) == (["all classes"], None, None)
    assert "19 are needed" in told.no_resplits


def test_a_share_of_no_rows_is_none():
    none, some = torch.tensor([False, False]), torch.tensor([True, False])
    assert answer_promises.share(some, none) is None
    told = answer_promises.share(some, torch.tensor([True, True]))
    assert (told.count, told.rows) == (1, 2)
