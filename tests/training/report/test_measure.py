"""The numbers of a report, against scikit-learn, scipy and counting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import betabinom, binomtest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from dubio.training.report import measure
from dubio.training.report.answers import Answers, ask
from dubio.training.report.resplits import Resplits, beta_binomial, resplit
from tests.training.report.conftest import Written


@pytest.fixture(scope="module")
def known(written: Written) -> Answers:
    return ask(written.predictor, written.data.raw("test")[0], lambda rows: iter(rows.split(100)))


def test_a_rate_has_scipys_exact_interval():
    told = measure.rate(9, 216)
    due = binomtest(9, 216).proportion_ci()
    assert (told.rate, told.low, told.high) == pytest.approx((9 / 216, due.low, due.high))


def test_a_promise_is_held_against_its_exact_law(known: Answers, written: Written):
    flag, labels = written.predictor.detector.calibration, written.data.raw("test")[1]
    rows, calibrated = len(labels), len(flag.scores_N)
    scores = torch.cat([flag.scores_N.double(), known.score_B.double()]).numpy()
    drawn = resplit(scores, calibrated, flag.alpha, flag.delta, count=20)
    law = betabinom(rows, drawn.alarms, calibrated + 1 - drawn.alarms)
    for flagged in (0, 5, 12, 20, rows):
        those = replace(known, flagged_B=torch.arange(rows) < flagged)
        told = measure.promise(flag, those, labels, written.predictor.classes, drawn)
        assert told.chance == pytest.approx(law.sf(flagged - 1), abs=1e-9)
        assert told.consistent == (law.sf(flagged - 1) >= 0.01)
    assert not told.consistent


@pytest.mark.parametrize("kept", [0, 380, 399, 400])
def test_resplits_are_held_against_their_law_by_the_binomial_test(kept: int):
    law = beta_binomial(100, 5, 96)
    drawn = Resplits(100, 100, 5, np.zeros(400, dtype=np.int64), law, kept / 400, 0.97)
    told = measure.resplits(drawn)
    assert told.chance == pytest.approx(binomtest(kept, 400, 0.97, "less").pvalue, abs=1e-9)
    assert told.consistent == (told.chance >= 0.01) == (kept > 379)


def test_strangers_are_told_apart_as_scikit_learn_says(known: Answers):
    generator = torch.Generator().manual_seed(0)
    others = replace(known, score_B=known.score_B + 0.3 * torch.rand(len(known.score_B), generator=generator))
    told = measure.out_of_distribution("others", known, others)
    truth = np.repeat([0, 1], len(known.score_B))
    assert told.auroc == pytest.approx(roc_auc_score(truth, torch.cat([known.score_B, others.score_B])))
    # At the threshold that catches 95% of the strangers.
    threshold = others.score_B.sort(descending=True).values[int(np.ceil(0.95 * len(others.score_B))) - 1]
    assert told.fpr95 == pytest.approx(float((known.score_B >= threshold).double().mean()))
    assert told.flagged.count == int(known.flagged_B.sum())


def test_a_class_without_rows_has_no_figures(known: Answers, written: Written):
    labels = written.data.raw("test")[1]
    told = measure.answer("deterministic", known, labels, (*written.predictor.classes, "none"))
    assert (told.by_class[-1].rows, told.by_class[-1].figures) == (0, None)
    assert sum(each.rows for each in told.by_class) == len(labels)
    assert sum(each.rows for each in told.reliability) == len(labels)
    assert told.risk_coverage[-1].coverage == 1
    assert told.risk_coverage[-1].risk == pytest.approx(1 - told.after.accuracy.value)


def test_the_largest_come_first_and_of_equal_ones_the_first():
    assert measure.top(torch.tensor([1.0, 3.0, 3.0, 2.0])).tolist() == [1, 2, 3, 0]
    assert len(measure.top(torch.zeros(100))) == measure.SHOWN


def test_examples_say_what_is_and_what_was_answered(known: Answers, written: Written):
    labels = written.data.raw("test")[1]
    row = int(measure.top(known.summary.predictive_entropy_B)[0])
    dataset = written.data.load()
    (told,) = measure.examples(torch.tensor([row]), known, labels, written.predictor.classes, {row: "shown"}, dataset)
    source = load_digits()
    assert written.data.raw("test")[0][row].flatten().tolist() == source.data[told.source_row].tolist()
    assert (told.at, told.label) == (f"row {told.source_row}", str(source.target[told.source_row]))
    answer = written.predictor.predict(written.data.raw("test")[0][row : row + 1])
    assert (told.row, told.label, told.shown) == (row, written.predictor.classes[int(labels[row])], "shown")
    assert told.answer == written.predictor.classes[int(answer.mc_label[0])]
    assert told.probability == pytest.approx(float(answer.mc_mean.max()), abs=1e-4)
    assert told == written.content.most_uncertain[0].model_copy(
        update={
            "shown": "shown",
            "probability": told.probability,
            "predictive_entropy": told.predictive_entropy,
            "p_value": told.p_value,
        }
    )
