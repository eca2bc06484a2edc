"""What is promised about answers of a real network, by all members and by as many as it takes."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from dubio.uncertainty import AdaptiveSampling, Detector, DeterministicPass, Outputs
from dubio.uncertainty.detection.answers import LabelledAnswers
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.label_sets import LabelSets
from dubio.uncertainty.detection.promises import AnswerPromises, with_all_members, with_as_many_as_it_takes

RISK, N, SPLITS = 0.1, 700, 30


def classify(deterministic: DeterministicPass) -> tuple[Tensor, Tensor]:
    return deterministic.logits_BC.argmax(-1), deterministic.logits_BC.softmax(-1)


@pytest.fixture(scope="module")
def detector(trained) -> Detector:
    names = ["mutual_information", "relative_mahalanobis"]
    return Detector.fit(trained.train, trained.train_labels_N, trained.select, names)


def few(outputs: Outputs, labels_N: Tensor, rows: slice) -> tuple[Outputs, Tensor]:
    return outputs.take(torch.arange(len(labels_N))[rows]), labels_N[rows]


@pytest.fixture(scope="module", params=["all", "auto"])
def answered(request, trained, detector) -> tuple[LabelledAnswers, LabelledAnswers]:
    """Select and fresh rows, as one way of asking members answers them."""
    stopping = AdaptiveSampling.fit(detector, trained.select, N, stages=(4, 8))
    kinds = {
        "all": partial(with_all_members, classify, detector, rounding=detector.least_rounding),
        "auto": partial(
            with_as_many_as_it_takes, classify, detector, rounding=detector.least_rounding, stopping=stopping
        ),
    }
    ask = kinds[request.param]
    held_out, labels_N = trained.held_out, trained.held_out_labels_N
    return ask(*few(held_out, labels_N, slice(0, 500))), ask(*few(held_out, labels_N, slice(500, 8000)))


def part(rows: LabelledAnswers, index: Tensor) -> LabelledAnswers:
    answers = replace(rows.answers, **{name: value[index] for name, value in vars(rows.answers).items()})
    rest = {name: getattr(rows, name)[index] for name in ("labels_N", "low_N", "high_N", "sure_N")}
    return replace(rows, answers=answers, **rest)


def test_both_promises_hold_over_draws_of_the_calibration_rows(answered):
    select, fresh = answered
    generator = torch.Generator().manual_seed(0)
    label_N = fresh.answers.mean_BC.argmax(-1)
    errors = int((label_N != fresh.labels_N).sum())
    assert errors / len(fresh) > RISK  # else everything might be accepted
    broken = given = 0
    covered = []
    for _ in range(SPLITS):
        order_N = torch.randperm(len(fresh), generator=generator)
        calibration, others = part(fresh, order_N[:N]), part(fresh, order_N[N:])
        flag = Calibration.fit(calibration.high_N)
        promises = AnswerPromises.fit(select, calibration, flag, (RISK,), LabelSets("lac", "all", 0.9))
        (rule,) = promises.acceptances
        held = promises.label_sets(others.answers.mean_BC).gather(-1, others.labels_N[:, None])
        covered.append(float(held.double().mean()))
        if rule.refusal:
            continue
        accepted = rule.accepts(others.answers, others.high_N)
        assert not bool((accepted & (flag.p_value(others.high_N) <= flag.level)).any())
        given += 1
        wrong = (others.answers.label_B != others.labels_N) | (others.answers.mean_BC.argmax(-1) != others.labels_N)
        broken += float(wrong[accepted].double().mean()) > RISK
    assert given > SPLITS / 2
    # Splits of the same rows are not independent, and other rows are measured than all there are: some slack.
    assert broken <= binom.ppf(0.999, SPLITS, 0.05)
    assert abs(np.mean(covered) - 0.9) < 0.02


def test_the_answers_are_those_that_are_given(trained, detector):
    outputs, labels_N = few(trained.held_out, trained.held_out_labels_N, slice(0, 50))
    rows = with_all_members(classify, detector, outputs, labels_N, detector.least_rounding)
    torch.testing.assert_close(rows.answers.mean_BC, outputs.probs_KBC.mean(0))
    score_N = detector.score(outputs)
    assert bool((rows.low_N <= score_N).all())
    assert bool((score_N <= rows.high_N).all())
    assert bool(rows.sure_N.all())


def test_rows_at_a_stages_threshold_are_not_sure(trained, detector):
    outputs, labels_N = few(trained.held_out, trained.held_out_labels_N, slice(0, 200))
    stopping = AdaptiveSampling.fit(detector, trained.select, N, stages=(4, 8))
    ask = partial(with_as_many_as_it_takes, classify, detector, outputs, labels_N, detector.least_rounding)
    rows = ask(stopping)
    assert float(rows.sure_N.double().mean()) > 0.95
    assert bool((rows.low_N <= rows.high_N).all())
    (first, *others) = stopping.stages
    seen = replace(detector, ranks={**detector.ranks, **first.ranks})
    at = float(seen.score(Outputs(outputs.deterministic, outputs.probs_KBC[:4]))[7])
    edge = replace(first, clearance=-1.0, below=at, above=float("inf"))
    unsure = ask(replace(stopping, stages=(edge, *others)))
    assert not bool(unsure.sure_N[7])


def test_rows_whose_members_agree_are_sure_wherever_they_stop(trained, detector):
    outputs, labels_N = few(trained.held_out, trained.held_out_labels_N, slice(0, 50))
    same = replace(outputs, probs_KBC=outputs.probs_KBC[:1].expand_as(outputs.probs_KBC).contiguous())
    stopping = AdaptiveSampling.fit(detector, trained.select, N, stages=(4,))
    seen = replace(detector, ranks={**detector.ranks, **stopping.stages[0].ranks})
    at = float(seen.score(Outputs(same.deterministic, same.probs_KBC[:4]))[7])
    edge = replace(stopping, stages=(replace(stopping.stages[0], clearance=-1.0, below=at, above=math.inf),))
    rounding = detector.least_rounding
    rows = with_as_many_as_it_takes(classify, detector, same, labels_N, rounding, edge)
    assert bool(rows.sure_N.all())
    # Where it stops is not known all the same: the scores of both stages count.
    assert float(rows.high_N[7]) >= float(detector.score(same)[7])
    assert rows.rounding == 2 * rounding.probability


def test_several_risks_are_promised_in_their_order(answered):
    select, fresh = answered
    calibration = part(fresh, torch.arange(2000))
    flag = Calibration.fit(calibration.high_N)
    promises = AnswerPromises.fit(select, calibration, flag, (0.2, 0.08, 1e-6))
    assert [each.risk for each in promises.acceptances] == [0.2, 0.08, 1e-6]
    loose, strict, never = promises.acceptances
    assert loose.accepted >= strict.accepted > 0
    assert never.refusal == "too_few_rows"
    promises.check(flag, 3)
