"""Resplits of the second promise: whether rules for accepting answers break it as seldom as they may."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dubio.training.evaluation import DETERMINISTIC, MC
from dubio.training.report.answers import Answers
from dubio.training.report.resplits import COUNT
from dubio.uncertainty.detection import answers as detection
from dubio.uncertainty.detection.answers import LabelledAnswers
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.selective import Acceptance, AcceptanceTests


@dataclass(frozen=True)
class AcceptanceResplits:
    """What rules came to, each calibrated on some of the held-out rows and measured on the others.

    Attributes:
        calibration: How many rows each calibration had.
        measured: How many rows each was measured on.
        promised_R: Whether there was a promise.
        broken_R: Whether more than the share `risk` of all the held-out rows that the rule accepts are wrong.
        accepted_R: How many of the measured rows were accepted,
        wrong_R: and how many of these are wrong.
        within_R: Whether that is at most the share `risk` of them.
    """

    calibration: int
    measured: int
    promised_R: np.ndarray[tuple[int], np.dtype[np.bool_]]
    broken_R: np.ndarray[tuple[int], np.dtype[np.bool_]]
    accepted_R: np.ndarray[tuple[int], np.dtype[np.int64]]
    wrong_R: np.ndarray[tuple[int], np.dtype[np.int64]]
    within_R: np.ndarray[tuple[int], np.dtype[np.bool_]]


def labelled(answers: Answers, labels_N: Tensor) -> LabelledAnswers:
    """Rows whose answers are those of one evaluation, so that no rounding is to be allowed for."""
    given = detection.Answers(answers.probs[DETERMINISTIC].argmax(1), answers.probs[DETERMINISTIC], answers.probs[MC])
    scores_N = answers.score_B.double()
    return LabelledAnswers(given, labels_N, scores_N, scores_N, torch.ones_like(labels_N, dtype=torch.bool), 0.0)


def resplit_acceptance(
    select: LabelledAnswers,
    held_out: LabelledAnswers,
    calibration: int,
    alpha: float,
    promise: Acceptance,
    count: int = COUNT,
    seed: int = 0,
) -> AcceptanceResplits:
    """Calibrate on rows drawn at random and measure on the others, over and over.

    Of the held-out rows that a rule would accept a division draws some without replacement, and the number of wrong
    ones among them is hypergeometric. Its lower tail, at which a test passes, is no heavier than that of the binomial
    law of the tests. So for any held-out rows the rules of at most a share delta of the divisions err more than `risk`
    on all of them.

    Args:
        select: Rows that fix the order of the tests.
        held_out: Rows that were used for nothing else, calibration and test split together.
        calibration: How many to calibrate on.
        alpha: Of the flag.
        promise: Which risk, delta and confidence score.
        count: How many resplits.
        seed: Draws them.

    Source: Hoeffding 1963, section 6; Uhlmann 1966.
    """
    tests = AcceptanceTests.fit(select, calibration, promise.risk, alpha, promise.delta, promise.confidence)
    generator = np.random.default_rng(seed)
    wrong_N = held_out.answers.label_B != held_out.labels_N  # of an accepted answer the other label is the same
    found = np.zeros((5, count), dtype=np.int64)
    for index in range(count):
        order = torch.from_numpy(generator.permutation(len(held_out)))
        rows = _rows(held_out, order[:calibration])
        rule = tests.calibrate(rows, Calibration.fit(rows.high_N, alpha, promise.delta))
        if rule.refusal:
            continue
        accepted_N = rule.accepts(held_out.answers, held_out.high_N)
        both_N = accepted_N & wrong_N
        accepted, wrong = int(accepted_N[order[calibration:]].sum()), int(both_N[order[calibration:]].sum())
        broken = int(both_N.sum()) > promise.risk * int(accepted_N.sum())
        found[:, index] = (True, broken, accepted, wrong, wrong <= math.floor(promise.risk * accepted + 1e-9))
    promised_R, broken_R, accepted_R, wrong_R, within_R = found
    return AcceptanceResplits(
        calibration,
        len(held_out) - calibration,
        promised_R.astype(bool),
        broken_R.astype(bool),
        accepted_R,
        wrong_R,
        within_R.astype(bool),
    )


def _rows(rows: LabelledAnswers, index_N: Tensor) -> LabelledAnswers:
    answers = rows.answers
    return LabelledAnswers(
        detection.Answers(answers.label_B[index_N], answers.probs_BC[index_N], answers.mean_BC[index_N]),
        rows.labels_N[index_N],
        rows.low_N[index_N],
        rows.high_N[index_N],
        rows.sure_N[index_N],
        rows.rounding,
    )
