"""Figures by class: recall, F1 and false alarms, and how they are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from dubio.uncertainty.detection.interval import clopper_pearson

SHOWN = 20  # classes; of more, those of lowest recall


@dataclass(frozen=True)
class ClassFigures:
    """How the rows of each class were answered.

    Attributes:
        rows_C: How many rows are of the class.
        predicted_C: How many rows were said to be.
        right_C: How many rows are and were said to be.
        flagged_C: How many of its rows were flagged, if flags were asked for.
    """

    rows_C: Tensor
    predicted_C: Tensor
    right_C: Tensor
    flagged_C: Tensor | None = None

    @classmethod
    def of(cls, labels_N: Tensor, predicted_N: Tensor, flagged_N: Tensor, num_classes: int) -> ClassFigures:
        """Counted from labels, predictions and flags."""
        chosen = (labels_N, predicted_N, labels_N[labels_N == predicted_N], labels_N[flagged_N])
        return cls(*(torch.bincount(rows, minlength=num_classes) for rows in chosen))

    @classmethod
    def of_confusion(cls, confusion_CC: Tensor) -> ClassFigures:
        """Counted from how often a class (first axis) was taken for another (second axis)."""
        return cls(confusion_CC.sum(1), confusion_CC.sum(0), confusion_CC.diagonal())

    @property
    def recall(self) -> Tensor:
        """Share of the class's rows that were said to be of it; NaN without rows."""
        return self.right_C.double() / self.rows_C

    @property
    def f1(self) -> Tensor:
        """Harmonic mean of recall and precision; NaN where the class neither occurs nor is predicted."""
        return 2 * self.right_C.double() / (self.rows_C + self.predicted_C)

    @property
    def macro_f1(self) -> float:
        """Mean of F1 over the classes, each counting alike however rare it is."""
        return float(self.f1.nanmean())

    @property
    def never_predicted(self) -> list[int]:
        """Classes that have rows, none of which was said to be of it, nor any other."""
        return ((self.rows_C > 0) & (self.predicted_C == 0)).nonzero().flatten().tolist()


def class_table(figures: ClassFigures, classes: Sequence[str]) -> Table:
    """One line a class of the test split; of many classes those of lowest recall."""
    there = (figures.rows_C > 0).nonzero().flatten()
    order = there
    title = "test rows by class"
    if len(there) > SHOWN:
        order = there[figures.recall[there].sort(stable=True).indices[:SHOWN]]
        title = f"{SHOWN} of {len(there)} classes, by recall"
    lines = Table(title=title, title_justify="left", title_style="bold")
    lines.add_column("class", style="cyan", overflow="fold")
    for name in ("rows", "recall", "F1", *(() if figures.flagged_C is None else ("flagged",))):
        lines.add_column(name, justify="right")
    for index in order.tolist():
        cells = [escape(classes[index]), str(int(figures.rows_C[index]))]
        cells += [f"{figures.recall[index]:.1%}", f"{figures.f1[index]:.3f}"]
        if figures.flagged_C is not None:
            flagged = int(figures.flagged_C[index])
            cells.append(f"{flagged} ({flagged / int(figures.rows_C[index]):.1%})")
        lines.add_row(*cells)
    return lines


def never_predicted(figures: ClassFigures, classes: Sequence[str]) -> str | None:
    """A warning where a class has test rows and is never predicted; None otherwise."""
    never = figures.never_predicted
    if not never:
        return None
    named = ", ".join(f"{classes[index]!r} ({int(figures.rows_C[index])} rows)" for index in never[:5])
    more = f" and {len(never) - 5} more" if len(never) > 5 else ""
    return (
        f"of the test rows none is predicted to be {named}{more}; set `model.init_args.class_weights: balanced` or "
        "`data.init_args.sampling: balanced`, or train longer."
    )


def measured_rate(flagged: int, rows: int, alpha: float) -> str:
    """A measured false-alarm rate with its interval, and whether it refutes the promise."""
    low, high = clopper_pearson(flagged, rows)
    verdict = "consistent with" if low <= alpha else "NOT consistent with"
    cure = "" if low <= alpha else "; are test and calibration rows alike?"
    return (
        f"{flagged} of {rows} test rows flagged ({flagged / rows:.1%}, 95% interval {low:.1%} to {high:.1%}): "
        f"{verdict} at most {alpha:.1%}{cure}"
    )
