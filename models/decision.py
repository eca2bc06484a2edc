"""The decision: which answers are accepted at each promised risk, and the label sets, as arrays and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubio.uncertainty.detection.answers import Answers
from dubio.uncertainty.detection.promises import AnswerPromises
from dubio.uncertainty.detection.selective import Acceptance

NO_RISK_PROMISED = "no_risk_promised"  # the calibration was asked for none


@dataclass(frozen=True)
class Decision:
    """Which of B answers are accepted at one risk.

    Attributes:
        accepted: ``[B]``; None where there is no promise that applies.
        risk: At most this share of accepted answers to inputs like the training data is wrong; None where nothing was
            calibrated.
        confidence: Of that promise, over the draw of the calibration rows.
        reason: Why there is none; None where there is.
    """

    accepted: NDArray[np.bool_] | None
    risk: float | None
    confidence: float | None
    reason: str | None


@dataclass(frozen=True)
class LabelSetRows:
    """The label sets of B inputs.

    Attributes:
        contains: ``[B, C]``, whether a class is in the set; None where there is no promise that applies.
        coverage: How often, at least, the true class is; None where nothing was calibrated.
        reason: Why there is none; None where there is.
    """

    contains: NDArray[np.bool_] | None
    coverage: float | None
    reason: str | None


def members(contains_C: NDArray[np.bool_], mean_C: NDArray[np.float32]) -> list[int]:
    """The classes in a label set, the most probable first."""
    held = np.flatnonzero(contains_C)
    order: list[int] = held[np.argsort(-mean_C[held], kind="stable")].tolist()
    return order


def decide(promises: AnswerPromises, answers: Answers, score_B: Tensor) -> tuple[Decision, ...]:
    """The decision at each risk; one that there is none where no risk was to be promised."""
    if not promises.acceptances:
        return undecided(promises, NO_RISK_PROMISED)
    return tuple(
        Decision(
            accepted=None if each.refusal else each.accepts(answers, score_B).cpu().numpy(),
            risk=each.risk,
            confidence=_confidence(each),
            reason=each.refusal,
        )
        for each in promises.acceptances
    )


def undecided(promises: AnswerPromises | None, reason: str) -> tuple[Decision, ...]:
    """No decision at any risk."""
    if promises is None:
        return (Decision(None, None, None, reason),)
    if not promises.acceptances:  # whatever else prevents it
        return (Decision(None, None, None, NO_RISK_PROMISED),)
    return tuple(Decision(None, each.risk, _confidence(each), reason) for each in promises.acceptances)


def cover(promises: AnswerPromises, answers: Answers) -> LabelSetRows:
    """The label sets."""
    contains_BC = promises.label_sets(answers.mean_BC)
    return LabelSetRows(contains_BC.cpu().numpy(), promises.label_sets.coverage, None)


def uncovered(promises: AnswerPromises | None, reason: str) -> LabelSetRows:
    """No label sets."""
    return LabelSetRows(None, promises.label_sets.coverage if promises else None, reason)


def unite(rows: Sequence[LabelSetRows]) -> LabelSetRows:
    """The union of several models' label sets: it contains the true class whenever one of them does."""
    sets = [each.contains for each in rows if each.contains is not None]
    if len(sets) < len(rows):
        return next(each for each in rows if each.contains is None)
    coverages = [each.coverage for each in rows if each.coverage is not None]
    return LabelSetRows(np.logical_or.reduce(sets), max(coverages), None)


def describe_decisions(promises: AnswerPromises | None) -> list[dict[str, Any]]:
    """What is promised about accepted answers, as plain data; empty where nothing was calibrated."""
    return [_describe_acceptance(each) for each in (promises.acceptances if promises else ())]


def describe_label_sets(*promises: AnswerPromises | None) -> dict[str, Any] | None:
    """What one or several models promise about label sets, as plain data; None where one promises nothing."""
    known = [each.label_sets for each in promises if each is not None]
    if len(known) < len(promises):
        return None
    sets = max(known, key=lambda each: each.coverage)
    whom = {"all": "inputs", "class": "inputs of each class", "predicted": "inputs of each predicted class"}[sets.by]
    return {
        "score": sets.score,
        "by": sets.by,
        "coverage": sets.coverage,
        "promise": f"the sets of at least {sets.coverage:.1%} of in-distribution {whom} contain the true class, over "
        "the draw of calibration rows and inputs",
    }


def _describe_acceptance(acceptance: Acceptance) -> dict[str, Any]:
    promise = (
        f"at most {acceptance.risk:.1%} of the accepted answers to in-distribution inputs are wrong, with confidence "
        f"{1 - acceptance.delta:.0%}"
    )
    return {
        "risk": acceptance.risk,
        "confidence": _confidence(acceptance),
        "n": acceptance.rows,
        "accepted": acceptance.accepted,
        "by": acceptance.confidence,
        "reason": acceptance.refusal,
        "promise": None if acceptance.refusal else promise,
    }


def _confidence(acceptance: Acceptance) -> float:
    return round(1 - acceptance.delta, 12)
