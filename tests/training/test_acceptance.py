"""The figures of accepted answers and label sets are those that one counts, and are told with what was promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import beta

from dubio.models.decision import Decision, LabelSetRows
from dubio.models.prediction import Flags, MonteCarlo, Prediction
from dubio.training.acceptance import AnswerFigures, lines, measured_risk
from dubio.uncertainty.detection.label_sets import LabelSets
from dubio.uncertainty.detection.promises import AnswerPromises
from dubio.uncertainty.detection.selective import TOO_MANY_ERRORS, Acceptance

SETS = LabelSets("lac", "all", 0.9, quantiles_G=torch.tensor([0.7], dtype=torch.float64))
KEPT = Acceptance(0.02, 0.05, "mc_margin", familiar=0.9, threshold=0.5, rows=400, accepted=300, wrong=1)
REFUSED = Acceptance(0.001, 0.05, "mc_margin", rows=400, refusal=TOO_MANY_ERRORS, risk_due=0.03)


def prediction(chance: np.random.Generator, rows: int) -> Prediction:
    probs = chance.dirichlet(np.ones(3), rows).astype(np.float32)
    none = np.zeros(rows, np.float32)
    label = probs.argmax(1)
    decisions = (Decision(chance.random(rows) < 0.6, 0.02, 0.95, None), Decision(None, 0.001, 0.95, TOO_MANY_ERRORS))
    return Prediction(
        samples=4,
        label=label,
        probabilities=probs,
        monte_carlo=MonteCarlo(label, probs, probs, none, none, none),
        flags=Flags(None, None, None, [None] * rows),
        decisions=decisions,
        label_sets=LabelSetRows(probs > 0.3, 0.9, None),
    )


def test_figures_are_counted():
    chance = np.random.default_rng(0)
    answers = [prediction(chance, rows) for rows in (7, 20, 1)]
    labels_N = chance.integers(0, 3, 28)
    figures = AnswerFigures.of(answers, labels_N)
    accepted = wrong = covered = size = 0
    for row, label in enumerate(labels_N):
        which, at = (0, row) if row < 7 else (1, row - 7) if row < 27 else (2, 0)
        answer = answers[which]
        accepted += answer.accepted[at]
        wrong += answer.accepted[at] and answer.label[at] != label
        covered += answer.label_set[at, label]
        size += answer.label_set[at].sum()
    assert figures == AnswerFigures(28, ((accepted, wrong), None), covered, size / 28)


def test_what_was_promised_and_measured_is_told():
    told = lines(AnswerPromises((KEPT, REFUSED), SETS), AnswerFigures(200, ((150, 2), None), 185, 1.25))
    assert [name for name, _ in told] == [
        "accepted, risk 0.02",
        "measured",
        "accepted, risk 0.001",
        "label sets (LAC)",
    ]
    low, high = beta.ppf(0.025, 2, 149), beta.ppf(0.975, 3, 148)
    for (_, line), said in zip(
        told,
        (
            "at most 2.0% of accepted answers are wrong, with confidence 95% (300 of 400 calibration rows accepted, 1 ",
            f"150 of 200 test rows accepted (75.0%), 2 of them wrong (1.3%, 95% interval {low:.1%} to {high:.1%}): con",
            "no promise: too many errors",
            "90.0% contain the true class; 185 of 200 test rows covered",
        ),
        strict=True,
    ):
        assert said in line
    assert told[-1][1].endswith("1.25 classes on average")


def test_without_measurement_the_promise_alone_is_told():
    told = lines(AnswerPromises((KEPT,), SETS), None)
    assert [name for name, _ in told] == ["accepted, risk 0.02", "label sets (LAC)"]
    assert lines(None, None) == []


def test_that_no_risk_was_promised_is_told():
    told = lines(AnswerPromises((), SETS), AnswerFigures(200, (None,), 185, 1.25))
    assert told[0] == ("accepted", "nothing is promised about accepted answers: no `calibration.risk` was set")
    assert [name for name, _ in told[1:]] == ["label sets (LAC)"]


@pytest.mark.parametrize(("wrong", "verdict"), [(0, "): consistent"), (3, "): consistent"), (30, "NOT consistent")])
def test_a_rate_that_refutes_the_promise_is_said_to(wrong: int, verdict: str):
    told = measured_risk(150, wrong, 200, 0.02)
    assert verdict in told
    assert ("are test and calibration rows alike?" in told) == (wrong == 30)
    assert measured_risk(0, 0, 200, 0.02) == "0 of 200 test rows accepted (0.0%)"


def test_figures_of_what_was_not_calibrated_are_none():
    bare = prediction(np.random.default_rng(0), 3)
    bare = replace(
        bare, decisions=(Decision(None, None, None, "not_calibrated"),), label_sets=LabelSetRows(None, None, None)
    )
    assert AnswerFigures.of([bare], np.zeros(3, np.int64)) == AnswerFigures(3, (None,))
