"""What a calibrated predictor achieves on the test split, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from dubio.models import Prediction, Predictor
from dubio.training import acceptance
from dubio.training.acceptance import AnswerFigures
from dubio.training.callbacks.learning_curves import logits
from dubio.training.class_figures import ClassFigures, measured_rate
from dubio.training.data.module import TensorDataModule
from dubio.training.progress import progress
from dubio.training.quality import Quality, intervals
from dubio.uncertainty.detection import temperature

DETERMINISTIC, MC = "deterministic", "MC dropout"  # the two answers, as they are told
FIGURES = {  # of `Quality`, as they are told
    "accuracy": "accuracy",
    "nll": "NLL (nats)",
    "brier": "Brier",
    "ece": "ECE",
    "adaptive_ece": "adaptive ECE",
    "aurc": "AURC",
}


@dataclass(frozen=True)
class Evaluation:
    """Figures of the test split, with the temperatures applied.

    Attributes:
        rows: How many rows were asked.
        deterministic: Of the deterministic predictions.
        by_class: Of the deterministic predictions.
        baseline: The class that most training rows have, or most of the rows that there are of a source without such,
            and the share of test rows that have it too.
        mc: Of the members' mean; None of a checkpoint that is not calibrated.
        flagged: How many rows were flagged, each of them a false alarm; None of such a checkpoint.
        out_of_distribution: How many inputs that are like no training data were flagged, and how many there are, by
            name.
        intervals: 95% intervals of the figures of `Quality` by their names, by answer.
        before: The figures without temperature, by answer; empty if they were not asked for.
        answers: What was accepted, and the label sets, if they were asked for.
    """

    rows: int
    deterministic: Quality
    by_class: ClassFigures
    baseline: tuple[str, float]
    mc: Quality | None = None
    flagged: int | None = None
    out_of_distribution: dict[str, tuple[int, int]] = field(default_factory=dict)
    intervals: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    before: dict[str, Quality] = field(default_factory=dict)
    answers: AnswerFigures | None = None


def evaluate(predictor: Predictor, data: TensorDataModule, before: bool = False) -> Evaluation:
    """Asks the predictor about the test split and what is like no training data, as the service would.

    Args:
        predictor: Calibrated.
        data: Gives the rows.
        before: Whether to tell the figures without the temperatures, too.
    """
    x, labels = data.raw("test")
    others = data.out_of_distribution()
    with progress("Measuring on the test split", len(x) + sum(map(len, others.values()))) as batches:
        asked = _Untempered(**{each.name: getattr(predictor, each.name) for each in fields(predictor)})
        answers = [asked.predict(batch) for batch in batches(x)]
        flagged = {
            name: sum(int(_flags(predictor.predict(batch)).sum()) for batch in batches(rows))
            for name, rows in others.items()
        }
    probs, probs_before = _probabilities(answers), {}
    if before:
        deterministic = temperature.undo(probs[DETERMINISTIC], predictor.temperature.deterministic)
        probs_before = {DETERMINISTIC: deterministic, MC: torch.cat(asked.means).cpu()}
    predicted = torch.cat([torch.from_numpy(answer.label) for answer in answers])
    flags = torch.cat([torch.from_numpy(_flags(answer)) for answer in answers])
    return Evaluation(
        rows=len(x),
        deterministic=Quality.of(probs[DETERMINISTIC], labels),
        mc=Quality.of(probs[MC], labels),
        flagged=int(flags.sum()),
        by_class=ClassFigures.of(labels, predicted, flags, len(data.classes)),
        baseline=_baseline(data),
        out_of_distribution={name: (count, len(others[name])) for name, count in flagged.items()},
        intervals={name: intervals(probs_BC, labels) for name, probs_BC in probs.items()},
        before={name: Quality.of(probs_BC, labels) for name, probs_BC in probs_before.items()},
        answers=AnswerFigures.of(answers, labels.numpy()),
    )


@dataclass(frozen=True)
class _Untempered(Predictor):
    """A predictor that keeps what its members' mean is without their temperature, batch by batch."""

    means: list[Tensor] = field(default_factory=list)

    def member_probs(self, x: Tensor, count: int, first: int = 0) -> Tensor:
        probs_KBC = super().member_probs(x, count, first)
        self.means.append(temperature.undo(probs_KBC, self.temperature.mc).mean(0))
        return probs_KBC


def _probabilities(answers: Sequence[Prediction]) -> dict[str, Tensor]:
    """Those of both answers."""
    both = {DETERMINISTIC: [each.probabilities for each in answers], MC: [each.mc_mean for each in answers]}
    return {name: torch.from_numpy(np.concatenate(parts)) for name, parts in both.items()}


def evaluate_uncalibrated(network: nn.Module, data: TensorDataModule) -> Evaluation:
    """Asks a network, without temperature, about the test split."""
    logits_BC, labels = logits(network, data, "test")
    predicted, unflagged = logits_BC.argmax(1), torch.zeros(len(labels), dtype=torch.bool)
    by_class = replace(ClassFigures.of(labels, predicted, unflagged, len(data.classes)), flagged_C=None)
    probs_BC = logits_BC.softmax(-1)
    bounds = {DETERMINISTIC: intervals(probs_BC, labels)}
    return Evaluation(len(labels), Quality.of(probs_BC, labels), by_class, _baseline(data), intervals=bounds)


def _baseline(data: TensorDataModule) -> tuple[str, float]:
    # A source of new rows has none to train on.
    known = next(known for name in ("train", "calibration", "test") if len(known := data.raw(name)[1]))
    most = int(known.bincount().argmax())
    return data.classes[most], float((data.raw("test")[1] == most).double().mean())


def _flags(answer: Prediction) -> npt.NDArray[np.bool_]:
    return np.zeros(len(answer.label), dtype=np.bool_) if answer.flagged is None else answer.flagged


def table(evaluation: Evaluation, path: Path, predictor: Predictor | None = None) -> Table:
    """A few lines that say what was trained, what is promised, and what was measured.

    Args:
        evaluation: Of the test split.
        path: Of the checkpoint.
        predictor: That of the checkpoint, if it is calibrated.
    """
    deterministic, mc = evaluation.deterministic, evaluation.mc
    lines = Table(title=str(path), show_header=False, title_justify="left", title_style="bold")
    lines.add_column(style="cyan", no_wrap=True)
    lines.add_column(overflow="fold")
    lines.add_row("test rows", str(evaluation.rows))
    members = "" if mc is None else f", {mc.accuracy:.2%} MC dropout"
    lines.add_row("accuracy", f"{deterministic.accuracy:.2%} deterministic{members}")
    name, share = evaluation.baseline
    lines.add_row("baseline", f"{share:.2%} accuracy for always saying {escape(repr(name[:40]))}")
    lines.add_row("macro-F1", f"{evaluation.by_class.macro_f1:.3f} deterministic, each class counting alike")
    members = "" if mc is None else f", {mc.nll:.4f} MC dropout"
    lines.add_row("NLL", f"{deterministic.nll:.4f} deterministic{members} (nats)")
    both = {DETERMINISTIC: deterministic} if mc is None else {DETERMINISTIC: deterministic, MC: mc}
    lines.add_row("ECE", ", ".join(f"{_error(each, name, evaluation)} {name}" for name, each in both.items()))
    if predictor is None or predictor.detector is None or predictor.detector.calibration is None:
        lines.add_row("promise", "none: this checkpoint is not calibrated (`dubio-train calibrate`)")
        return lines
    calibration = predictor.detector.calibration
    sites = ", ".join(f"{site.kind} {site.p:g}" for site in predictor.committee.sites)
    lines.add_row("committee", f"{predictor.committee.num_samples} members; dropout sites: {sites}")
    tuning = predictor.provenance.tuning if predictor.provenance else None
    if tuning is not None and tuning.factor != 1:
        lines.add_row("rates", f"{tuning.factor:g} times those of the training, which suits the {tuning.split} rows")
    lines.add_row(
        "promise",
        f"at most {calibration.alpha:.1%} false alarms, with confidence {1 - calibration.delta:.0%} "
        f"over all classes together (p-value at or below {calibration.level:.4f}; {len(calibration.scores_N)} "
        "calibration rows)",
    )
    lines.add_row("measured", measured_rate(evaluation.flagged or 0, evaluation.rows, calibration.alpha))
    for name, told in acceptance.lines(predictor.promises, evaluation.answers):
        lines.add_row(name, told)
    for name, (flagged, count) in evaluation.out_of_distribution.items():
        lines.add_row("strangers", f"{flagged} of {count} {name} flagged ({flagged / count:.1%})")
    return lines


def quality_table(evaluation: Evaluation) -> Table:
    """The figures of both answers, before and after temperature scaling: one line a figure, to fit a terminal."""
    told = {DETERMINISTIC: evaluation.deterministic, MC: evaluation.mc}
    columns = [
        (name, when, figures[name])
        for name in told
        for when, figures in (("before", evaluation.before), ("after", told))
        if figures.get(name) is not None
    ]
    lines = Table(title="probabilities of the test rows, by temperature", title_justify="left", title_style="bold")
    lines.add_column("", style="cyan", no_wrap=True)
    for name, when, _ in columns:
        lines.add_column(f"{name}\n{when}", justify="right", no_wrap=True)
    for figure, label in FIGURES.items():
        lines.add_row(label, *(_told(getattr(quality, figure), figure) for _, _, quality in columns))
        if figure == "ece":
            for end, side in enumerate(("low", "high")):
                ends = [
                    f"{evaluation.intervals[name][figure][end]:.4f}"
                    if when == "after" and name in evaluation.intervals
                    else ""
                    for name, when, _ in columns
                ]
                lines.add_row(f"ECE, 95% {side}", *ends)
    return lines


def _told(value: float, figure: str) -> str:
    return f"{value:.2%}" if figure == "accuracy" else f"{value:.4f}"


def _error(quality: Quality, name: str, evaluation: Evaluation) -> str:
    if name not in evaluation.intervals:
        return f"{quality.ece:.4f}"
    low, high = evaluation.intervals[name]["ece"]
    return f"{quality.ece:.4f} ({low:.4f} to {high:.4f})"
