"""What the second promise and the label sets come to on the test split, and how that is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dubio.models import Prediction
from dubio.uncertainty.detection.interval import clopper_pearson
from dubio.uncertainty.detection.promises import AnswerPromises


@dataclass(frozen=True)
class AnswerFigures:
    """Counted on the test split.

    Attributes:
        rows: All of them.
        accepted: For each risk how many answers were accepted and how many of these are wrong; None where there is no
            promise.
        covered: How many label sets contain the true class; None where there are no sets.
        size: Mean number of classes in a set.
    """

    rows: int
    accepted: tuple[tuple[int, int] | None, ...] = ()
    covered: int | None = None
    size: float = 0.0

    @classmethod
    def of(cls, answers: Sequence[Prediction], labels_N: npt.NDArray[np.int64]) -> AnswerFigures:
        """Counted from answers, in the order of the labels."""
        answer = Prediction.join(answers)
        rows = np.arange(len(labels_N))
        wrong_N = answer.label != labels_N  # of an accepted answer the other label is the same
        taken = [each.accepted for each in answer.decisions or ()]
        counts = tuple(None if each is None else (int(each.sum()), int((each & wrong_N).sum())) for each in taken)
        sets = answer.label_set
        if sets is None:
            return cls(len(rows), counts)
        return cls(len(rows), counts, int(sets[rows, labels_N].sum()), float(sets.sum(1).mean()))


def lines(promises: AnswerPromises | None, figures: AnswerFigures | None) -> list[tuple[str, str]]:
    """What is promised and what was measured, by name.

    Args:
        promises: Those of the checkpoint.
        figures: Of the test split, if it was measured.
    """
    if promises is None:
        return []
    told: list[tuple[str, str]] = []
    if not promises.acceptances:
        told.append(("accepted", "nothing is promised about accepted answers: no `calibration.risk` was set"))
    for index, each in enumerate(promises.acceptances):
        confidence = f"with confidence {1 - each.delta:.0%}"
        name = f"accepted, risk {each.risk:g}"
        if each.refusal:
            told.append((name, f"no promise: {each.refusal.replace('_', ' ')}"))
            continue
        told.append(
            (
                name,
                f"at most {each.risk:.1%} of accepted answers are wrong, {confidence} ({each.accepted} of {each.rows} "
                f"calibration rows accepted, {each.wrong} wrong)",
            )
        )
        counted = figures.accepted[index] if figures and index < len(figures.accepted) else None
        if figures and counted:
            told.append(("measured", measured_risk(*counted, figures.rows, each.risk)))
    sets = promises.label_sets
    size = f", {figures.size:.2f} classes on average" if figures and figures.covered is not None else ""
    measured = ""
    if figures and figures.covered is not None and figures.rows:
        low, high = clopper_pearson(figures.covered, figures.rows)
        measured = f"; {figures.covered} of {figures.rows} test rows covered (95% interval {low:.1%} to {high:.1%})"
    told.append((f"label sets ({sets.score.upper()})", f"{sets.coverage:.1%} contain the true class{measured}{size}"))
    return told


def measured_risk(accepted: int, wrong: int, rows: int, risk: float) -> str:
    """A measured error rate of accepted answers with its interval, and whether it refutes the promise."""
    share = f"{accepted} of {rows} test rows accepted ({accepted / rows:.1%})"
    if not accepted:
        return share
    low, high = clopper_pearson(wrong, accepted)
    verdict = "consistent with" if low <= risk else "NOT consistent with"
    cure = "" if low <= risk else "; are test and calibration rows alike?"
    return (
        f"{share}, {wrong} of them wrong ({wrong / accepted:.1%}, 95% interval {low:.1%} to {high:.1%}): {verdict} at "
        f"most {risk:.1%}{cure}"
    )
