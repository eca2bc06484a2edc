"""What is promised about answers, accepted ones and label sets, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dubio.training.evaluation import DETERMINISTIC, MC
from dubio.training.report import content
from dubio.training.report.acceptance_resplits import AcceptanceResplits, labelled, resplit_acceptance
from dubio.training.report.answers import Answers
from dubio.training.report.measure import SIGNIFICANCE, rate, resplits
from dubio.training.report.resplits import Resplits, beta_binomial, resplit_label_sets
from dubio.uncertainty.detection import label_sets as detection
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.interval import binomial_at_most
from dubio.uncertainty.detection.selective import Acceptance

Split = tuple[Answers, Tensor]  # answers and true classes

NO_SELECT = "the data have no select rows, which the order of the tests is fixed on"
NO_PROMISE = "there is no promise"


def acceptance(
    promise: Acceptance, calibration: Calibration, select: Split | None, calibrated: Split, test: Split, classes: int
) -> tuple[content.Acceptance, AcceptanceResplits | None]:
    """One promised risk, and its resplits where there are any.

    Args:
        promise: Of the checkpoint.
        calibration: Of its flag.
        select: The select split.
        calibrated: The calibration split.
        test: The test split.
        classes: How many.
    """
    facts = {
        "risk": promise.risk,
        "delta": promise.delta,
        "confidence": promise.confidence,
        "calibration_rows": promise.rows,
    }
    if promise.refusal:
        nothing = dict.fromkeys(("threshold", "accepted", "wrong", "wrong_by_class", "consistent", "resplits"))
        refused = content.Acceptance(
            **facts, **nothing, reason=promise.refusal, advice=promise.advice(), no_resplits=NO_PROMISE
        )
        return refused, None
    known, labels_B = test
    accepted_B = promise.accepts(labelled(known, labels_B).answers, known.score_B)
    wrong_B = accepted_B & (known.probs[DETERMINISTIC].argmax(1) != labels_B)
    wrong = share(wrong_B, accepted_B)
    drawn = None
    if select is not None:
        held_out = labelled(_joined(calibrated[0], known), torch.cat([calibrated[1], labels_B]))
        drawn = resplit_acceptance(labelled(*select), held_out, len(calibrated[1]), calibration.alpha, promise)
    told = content.Acceptance(
        **facts,
        threshold=promise.threshold,
        reason=None,
        advice=None,
        accepted=rate(int(accepted_B.sum()), len(labels_B)),
        wrong=wrong,
        wrong_by_class=[share(wrong_B, accepted_B & (labels_B == index)) for index in range(classes)],
        consistent=None if wrong is None else wrong.low <= promise.risk,
        resplits=None if drawn is None else acceptance_resplits(drawn, promise.delta),
        no_resplits=NO_SELECT if drawn is None else None,
    )
    return told, drawn


def acceptance_resplits(drawn: AcceptanceResplits, delta: float) -> content.AcceptanceResplits:
    """How often rules broke the promise, held against delta by the exact binomial test."""
    count, promised = len(drawn.promised_R), int(drawn.promised_R.sum())
    accepted, wrong = int(drawn.accepted_R.sum()), int(drawn.wrong_R.sum())
    broken = rate(int(drawn.broken_R.sum()), count)
    chance = 1.0 - binomial_at_most(broken.count - 1, count, delta) if broken.count else 1.0
    return content.AcceptanceResplits(
        count=count,
        calibration_rows=drawn.calibration,
        measured_rows=drawn.measured,
        promised=promised,
        broken=broken,
        mean_accepted=accepted / (count * drawn.measured),
        mean_wrong=wrong / accepted if accepted else None,
        within=rate(int(drawn.within_R.sum()), promised) if promised else None,
        chance=max(chance, 0.0),
        consistent=chance >= SIGNIFICANCE,
    )


def label_sets(
    rule: detection.LabelSets, calibrated: Split, test: Split, classes: Sequence[str]
) -> tuple[content.LabelSets, Resplits | None]:
    """The coverage of label sets, and its resplits where there is one law for all inputs.

    Args:
        rule: Calibrated.
        calibrated: The calibration split.
        test: The test split.
        classes: Their names.
    """
    known, labels_B = test
    contains_BC = rule(known.probs[MC])
    covered_B = contains_BC.gather(1, labels_B.unsqueeze(1)).squeeze(1)
    rows, covered = len(calibrated[1]), rate(int(covered_B.sum()), len(labels_B))
    drawn, chance, why = None, None, None
    if rule.by == "all":
        scores_N = torch.cat([_of_true(rule.scores, *calibrated), _of_true(rule.scores, *test)])
        drawn = resplit_label_sets(scores_N.numpy(), rows, rule.coverage)
        if drawn is None:
            why = f"so few calibration rows give sets of every class: {detection.rows_for(rule.coverage)} are needed"
        else:
            law_m = beta_binomial(covered.rows, drawn.alarms, rows + 1 - drawn.alarms)
            chance = min(float(law_m[covered.rows - covered.count :].sum()), 1.0)
    else:
        of = "true" if rule.by == "class" else "predicted"
        why = f"the sets have a quantile for each {of} class, so that there is no one law over all inputs"
    classes_B = contains_BC.sum(1)
    told = content.LabelSets(
        score=rule.score,
        by=rule.by,
        coverage=rule.coverage,
        calibration_rows=rows,
        unbounded=[classes[group] if rule.by != "all" else "all classes" for group in rule.unbounded],
        covered=covered,
        by_class=[share(covered_B & (labels_B == index), labels_B == index) for index in range(len(classes))],
        sizes=classes_B.bincount(minlength=len(classes) + 1)[1:].tolist(),
        mean_size=float(classes_B.double().mean()),
        chance=chance,
        consistent=covered.high >= rule.coverage if chance is None else chance >= SIGNIFICANCE,
        resplits=None if drawn is None else resplits(drawn),
        no_resplits=why,
    )
    return told, drawn


def share(some_B: Tensor, among_B: Tensor) -> content.Rate | None:
    """How many of the rows are some of them; None of no rows."""
    rows = int(among_B.sum())
    return rate(int((some_B & among_B).sum()), rows) if rows else None


def _of_true(scores: Callable[[Tensor], Tensor], answers: Answers, labels_N: Tensor) -> Tensor:
    return scores(answers.probs[MC]).gather(1, labels_N.unsqueeze(1)).squeeze(1)


def _joined(one: Answers, other: Answers) -> Answers:
    """Of what accepting looks at; the rest is that of the first."""
    probs = {name: torch.cat([each, other.probs[name]]) for name, each in one.probs.items()}
    return replace(one, probs=probs, score_B=torch.cat([one.score_B, other.score_B]))
