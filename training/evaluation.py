"""What a calibrated predictor achieves on the test split, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from dubio.models import Prediction, Predictor
from dubio.training.callbacks.learning_curves import logits
from dubio.training.data.module import TensorDataModule
from dubio.training.progress import progress
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
        by_class: Of the deterministic predictions.
        baseline: The class that most training rows have, or most of the rows that there are of a source without such,
            and the share of test rows that have it too.
        mc: Of the members' mean; None of a checkpoint that is not calibrated.
        flagged: How many rows were flagged, each of them a false alarm; None of such a checkpoint.
        out_of_distribution: How many inputs that are like no training data were flagged, and how many there are, by
            name.
    """

    rows: int
    deterministic: Quality
    by_class: ClassFigures
    baseline: tuple[str, float]
    mc: Quality | None = None
    flagged: int | None = None
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
    return Evaluation(
        rows=len(x),
        deterministic=Quality.of(torch.cat([torch.from_numpy(answer.probabilities) for answer in answers]), labels),
        mc=Quality.of(torch.cat([torch.from_numpy(answer.mc_mean) for answer in answers]), labels),
        flagged=int(flags.sum()),
        by_class=ClassFigures.of(labels, predicted, flags, len(data.classes)),
        baseline=_baseline(data),
        out_of_distribution={name: (count, len(others[name])) for name, count in flagged.items()},
    )


def evaluate_uncalibrated(network: nn.Module, data: TensorDataModule) -> Evaluation:
    """Asks a network, without temperature, about the test split."""
    logits_BC, labels = logits(network, data, "test")
    predicted, unflagged = logits_BC.argmax(1), torch.zeros(len(labels), dtype=torch.bool)
    by_class = replace(ClassFigures.of(labels, predicted, unflagged, len(data.classes)), flagged_C=None)
    return Evaluation(len(labels), Quality.of(logits_BC.softmax(-1), labels), by_class, _baseline(data))


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
    if predictor is None or predictor.detector is None or predictor.detector.calibration is None:
        lines.add_row("promise", "none: this checkpoint is not calibrated (`dubio-train calibrate`)")
        return lines
    calibration = predictor.detector.calibration
    sites = ", ".join(f"{site.kind} {site.p:g}" for site in predictor.committee.sites)
    lines.add_row("committee", f"{predictor.committee.num_samples} members; dropout sites: {sites}")
    lines.add_row(
        "promise",
        f"at most {calibration.alpha:.1%} false alarms, with confidence {1 - calibration.delta:.0%} "
        f"over all classes together (p-value at or below {calibration.level:.4f}; {len(calibration.scores_N)} "
        "calibration rows)",
    )
    lines.add_row("measured", measured_rate(evaluation.flagged or 0, evaluation.rows, calibration.alpha))
    for name, (flagged, count) in evaluation.out_of_distribution.items():
        lines.add_row("strangers", f"{flagged} of {count} {name} flagged ({flagged / count:.1%})")
    return lines
