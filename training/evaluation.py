"""What a calibrated predictor achieves on the test split, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.markup import escape
from rich.table import Table
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from dubio.models import Prediction, Predictor
from dubio.training.calibration import progress
from dubio.training.data.module import TensorDataModule
from dubio.training.report import ClassFigures, measured_rate
from dubio.uncertainty.detection.measures import negative_log_likelihood

BINS = 15


@dataclass(frozen=True)
class Quality:
    """Figures of one split.

    Attributes:
        accuracy: Share of right labels.
        nll: Mean negative log-likelihood in nats.
        ece: Expected calibration error over 15 bins of equal width (Naeini 2015).
    """

    accuracy: float
    nll: float
    ece: float

    @staticmethod
    def of(probs_BC: Tensor, labels_B: Tensor) -> Quality:
        """Of probabilities; one that rounds to 0 counts as the smallest number."""
        # Beyond 1 torchmetrics would take them for logits.
        probs_BC = probs_BC.clamp(torch.finfo(probs_BC.dtype).tiny, 1.0)
        ece = multiclass_calibration_error(probs_BC, labels_B, num_classes=probs_BC.shape[1], n_bins=BINS, norm="l1")
        accuracy = (probs_BC.argmax(1) == labels_B).double().mean()
        nll_B = negative_log_likelihood(probs_BC.double().log(), labels_B)
        return Quality(float(accuracy), float(nll_B.mean()), float(ece))


@dataclass(frozen=True)
class Evaluation:
    """Figures of the test split, with the temperatures applied.

    Attributes:
        rows: How many rows were asked.
        deterministic: Of the deterministic predictions.
        mc: Of the members' mean.
        flagged: How many rows were flagged, each of them a false alarm.
        by_class: Of the deterministic predictions.
        baseline: The class that most training rows have, or most calibration rows of a source without such, and the
            share of test rows that have it too.
        out_of_distribution: How many inputs that are like no training data were flagged, and how many there are, by
            name.
    """

    rows: int
    deterministic: Quality
    mc: Quality
    flagged: int
    by_class: ClassFigures
    baseline: tuple[str, float]
    out_of_distribution: dict[str, tuple[int, int]] = field(default_factory=dict)


def evaluate(predictor: Predictor, data: TensorDataModule) -> Evaluation:
    """Asks the predictor about the test split and what is like no training data, as the service would."""
    x, labels = data.raw("test")
    others = data.out_of_distribution()
    with progress("Measuring on the test split", len(x) + sum(map(len, others.values()))) as batches:
        answers = [predictor.predict(batch) for batch in batches(x)]
        flagged = {
            name: sum(int(_flags(predictor.predict(batch)).sum()) for batch in batches(rows))
            for name, rows in others.items()
        }
    predicted = torch.cat([torch.from_numpy(answer.label) for answer in answers])
    flags = torch.cat([torch.from_numpy(_flags(answer)) for answer in answers])
    # A source of new rows has none to train on.
    known = next(known for name in ("train", "calibration") if len(known := data.raw(name)[1]))
    most = int(known.bincount().argmax())
    return Evaluation(
        rows=len(x),
        deterministic=Quality.of(torch.cat([torch.from_numpy(answer.probabilities) for answer in answers]), labels),
        mc=Quality.of(torch.cat([torch.from_numpy(answer.mc_mean) for answer in answers]), labels),
        flagged=int(flags.sum()),
        by_class=ClassFigures.of(labels, predicted, flags, len(data.classes)),
        baseline=(data.classes[most], float((labels == most).double().mean())),
        out_of_distribution={name: (count, len(others[name])) for name, count in flagged.items()},
    )


def _flags(answer: Prediction) -> npt.NDArray[np.bool_]:
    return np.zeros(len(answer.label), dtype=np.bool_) if answer.flagged is None else answer.flagged


def table(predictor: Predictor, evaluation: Evaluation, path: Path) -> Table:
    """A few lines that say what was trained, what is promised, and what was measured."""
    detector = predictor.detector
    if detector is None or detector.calibration is None:
        raise ValueError("Expected a calibrated predictor.")
    calibration = detector.calibration
    deterministic, mc = evaluation.deterministic, evaluation.mc
    lines = Table(title=str(path), show_header=False, title_justify="left", title_style="bold")
    lines.add_column(style="cyan", no_wrap=True)
    lines.add_column(overflow="fold")
    lines.add_row("test rows", str(evaluation.rows))
    lines.add_row("accuracy", f"{deterministic.accuracy:.2%} deterministic, {mc.accuracy:.2%} MC dropout")
    name, share = evaluation.baseline
    lines.add_row("baseline", f"{share:.2%} accuracy for always saying {escape(repr(name[:40]))}")
    lines.add_row("macro-F1", f"{evaluation.by_class.macro_f1:.3f} deterministic, each class counting alike")
    lines.add_row("NLL", f"{deterministic.nll:.4f} deterministic, {mc.nll:.4f} MC dropout (nats)")
    sites = ", ".join(f"{site.kind} {site.p:g}" for site in predictor.committee.sites)
    lines.add_row("committee", f"{predictor.committee.num_samples} members; dropout sites: {sites}")
    lines.add_row(
        "promise",
        f"at most {calibration.alpha:.1%} false alarms, with confidence {1 - calibration.delta:.0%} "
        f"over all classes together (p-value at or below {calibration.level:.4f}; {len(calibration.scores_N)} "
        "calibration rows)",
    )
    lines.add_row("measured", measured_rate(evaluation.flagged, evaluation.rows, calibration.alpha))
    for name, (flagged, count) in evaluation.out_of_distribution.items():
        lines.add_row("strangers", f"{flagged} of {count} {name} flagged ({flagged / count:.1%})")
    return lines
