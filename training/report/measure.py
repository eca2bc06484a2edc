"""From answers to the numbers of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from dubio.training import quality
from dubio.training.evaluation import MC
from dubio.training.quality import Quality
from dubio.training.report import content
from dubio.training.report.answers import Answers
from dubio.training.report.resplits import Resplits
from dubio.training.splits.dataset import Dataset
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.interval import binomial_at_most, clopper_pearson

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
SHOWN = 12  # examples of each kind
SIGNIFICANCE = 0.01  # what has a smaller chance is not consistent with a promise


def rate(count: int, rows: int) -> content.Rate:
    """A share of at least one row, with its interval."""
    low, high = clopper_pearson(count, rows)
    return content.Rate(count=count, rows=rows, rate=count / rows, low=low, high=high)


def figures(probs_BC: Tensor, labels_B: Tensor) -> content.Figures:
    """All of `Quality`, with intervals."""
    bounds = quality.intervals(probs_BC, labels_B)
    measured = asdict(Quality.of(probs_BC, labels_B))
    return content.Figures(
        **{
            name: content.Measured(value=value, low=bounds[name][0], high=bounds[name][1])
            for name, value in measured.items()
        }
    )


def answer(name: str, answers: Answers, labels_B: Tensor, classes: Sequence[str]) -> content.Answer:
    """One of the two answers to the test rows."""
    probs_BC = answers.probs[name]
    risk_B = quality.risk_coverage(probs_BC.double().amax(1).numpy(), (probs_BC.argmax(1) == labels_B).numpy())
    by_class = []
    for index, label in enumerate(classes):
        mine_B = labels_B == index
        known = figures(probs_BC[mine_B], labels_B[mine_B]) if bool(mine_B.any()) else None
        by_class.append(content.ClassFigures(name=label, rows=int(mine_B.sum()), figures=known))
    bins = quality.reliability(probs_BC, labels_B)
    rows_b = [*zip(bins.low_b, bins.high_b, bins.rows_b, bins.confidence_b, bins.accuracy_b, strict=True)]
    return content.Answer(
        before=figures(answers.before[name], labels_B),
        after=figures(probs_BC, labels_B),
        by_class=by_class,
        reliability=[
            content.Bin(
                low=low,
                high=high,
                rows=int(rows),
                confidence=min(confidence, 1.0) if rows else None,
                accuracy=right if rows else None,
            )
            for low, high, rows, confidence, right in rows_b
        ],
        risk_coverage=[
            content.Coverage(coverage=share, risk=risk_B[max(1, round(share * len(risk_B))) - 1]) for share in COVERAGES
        ],
    )


def promise(
    calibration: Calibration, answers: Answers, labels_B: Tensor, classes: Sequence[str], drawn: Resplits
) -> content.Promise:
    """The promise, held against the test rows and against its law."""
    by_class = []
    for index in range(len(classes)):
        mine_B = labels_B == index
        known = rate(int(answers.flagged_B[mine_B].sum()), int(mine_B.sum())) if bool(mine_B.any()) else None
        by_class.append(known)
    measured = rate(int(answers.flagged_B.sum()), len(labels_B))
    chance = min(float(drawn.law_m[measured.count :].sum()), 1.0)
    return content.Promise(
        alpha=calibration.alpha,
        delta=calibration.delta,
        level=calibration.level,
        calibration_rows=len(calibration.scores_N),
        measured=measured,
        by_class=by_class,
        chance=chance,
        consistent=chance >= SIGNIFICANCE,
        resplits=resplits(drawn),
    )


def resplits(drawn: Resplits) -> content.Resplits:
    """How often a promise was kept over resplits, held against its law by the exact binomial test."""
    count, due = len(drawn.false_alarms_R), min(drawn.due, 1.0)
    within = rate(round(drawn.within * count), count)
    chance = min(binomial_at_most(within.count, count, due), 1.0)
    return content.Resplits(
        count=count,
        calibration_rows=drawn.calibration,
        measured_rows=drawn.measured,
        within=within,
        due=due,
        mean_rate=float(drawn.false_alarms_R.mean() / drawn.measured),
        chance=chance,
        consistent=chance >= SIGNIFICANCE,
    )


def out_of_distribution(name: str, known: Answers, others: Answers) -> content.OutOfDistribution:
    """How well some strangers are told from the test rows."""
    strange = np.r_[np.zeros(len(known.score_B)), np.ones(len(others.score_B))]
    scores = torch.cat([known.score_B, others.score_B]).numpy()
    alarms, caught, _ = roc_curve(strange, scores, drop_intermediate=False)
    return content.OutOfDistribution(
        name=name,
        flagged=rate(int(others.flagged_B.sum()), len(others.flagged_B)),
        auroc=float(roc_auc_score(strange, scores)),
        fpr95=float(alarms[np.argmax(caught >= 0.95)]),
    )


def settling(answers: Answers) -> list[content.Settled]:
    """How far fewer members are from all."""
    known = answers.settling
    return [
        content.Settled(members=members, mean=float(mean_B.double().mean()), std=float(std_B.double().mean()))
        for members, mean_B, std_B in zip(known.members, known.mean_kB, known.std_kB, strict=True)
    ]


def corrupted(name: str, severity: int, answers: Answers, labels_B: Tensor) -> content.Corrupted:
    """What damage of one kind does."""
    return content.Corrupted(
        name=name,
        severity=severity,
        rows=len(labels_B),
        accuracy={
            each: float((probs_BC.argmax(1) == labels_B).double().mean()) for each, probs_BC in answers.probs.items()
        },
        predictive_entropy=float(answers.summary.predictive_entropy_B.double().mean()),
        flagged=rate(int(answers.flagged_B.sum()), len(labels_B)),
    )


def examples(
    order_B: Tensor,
    answers: Answers,
    labels_B: Tensor,
    classes: Sequence[str],
    shown: Mapping[int, str],
    dataset: Dataset,
) -> list[content.Example]:
    """Test rows in the order of their indices.

    Args:
        order_B: Their indices.
        answers: To all test rows.
        labels_B: Their true classes.
        classes: Names of these.
        shown: What each of them looks like.
        dataset: Says where they are in the source.
    """
    mean_BC, source_B = answers.probs[MC], dataset.rows["test"]
    return [
        content.Example(
            row=row,
            source_row=int(source_B[row]),
            at=dataset.at(int(source_B[row])),
            label=classes[int(labels_B[row])],
            answer=classes[int(mean_BC[row].argmax())],
            probability=min(float(mean_BC[row].max()), 1.0),
            predictive_entropy=float(answers.summary.predictive_entropy_B[row]),
            p_value=float(answers.p_value_B[row]),
            flagged=bool(answers.flagged_B[row]),
            shown=shown[row],
        )
        for row in order_B.tolist()
    ]


def top(values_B: Tensor) -> Tensor:
    """Indices of the rows with the largest values; of equal ones the first comes first."""
    return values_B.double().argsort(descending=True, stable=True)[:SHOWN]
