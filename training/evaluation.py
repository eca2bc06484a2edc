"""What a calibrated predictor achieves on the test split, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table

from dubio.models import Predictor
from dubio.training.calibration import BATCH, progress
from dubio.training.data.module import TensorDataModule


@dataclass(frozen=True)
class Measured:
    """Figures of the test split.

    Attributes:
        rows: how many rows were measured.
        accuracy, mc_accuracy: share of right labels, deterministic and from the members' mean.
        nll, mc_nll: mean negative log-likelihood in nats, with the temperatures applied.
        flagged: how many rows were flagged, each of them a false alarm.
        strangers: how many of the data set's strangers were flagged, and how many there are, by name.
    """

    rows: int
    accuracy: float
    mc_accuracy: float
    nll: float
    mc_nll: float
    flagged: int
    strangers: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def false_alarm_rate(self) -> float:
        return self.flagged / self.rows


def measure(predictor: Predictor, data: TensorDataModule) -> Measured:
    """Asks the predictor about every row of the test split and every stranger, as the service would."""
    x, labels = data.raw("test")
    known = data.strangers()
    strangers: dict[str, tuple[int, int]] = {}
    right = mc_right = flagged = 0
    loss = mc_loss = 0.0
    with progress("Measuring on the test split", len(x) + sum(map(len, known.values()))) as advance:
        for batch, truth in zip(x.split(BATCH), labels.split(BATCH), strict=True):
            answer, truth_B = predictor.predict(batch), truth.numpy()
            right += int((answer.label == truth_B).sum())
            mc_right += int((answer.mc_label == truth_B).sum())
            loss += _nll(answer.probabilities, truth_B)
            mc_loss += _nll(answer.mc_mean, truth_B)
            flagged += 0 if answer.flagged is None else int(answer.flagged.sum())
            advance(len(batch))
        for name, others in known.items():
            found = 0
            for batch in others.split(BATCH):
                verdict = predictor.predict(batch).flagged
                found += 0 if verdict is None else int(verdict.sum())
                advance(len(batch))
            strangers[name] = (found, len(others))
    rows = len(x)
    return Measured(rows, right / rows, mc_right / rows, loss / rows, mc_loss / rows, flagged, strangers)


def table(predictor: Predictor, measured: Measured, path: Path) -> Table:
    """A few lines that say what was trained, what is promised, and what was measured."""
    detector = predictor.detector
    if detector is None or detector.calibration is None:
        raise ValueError("Expected a calibrated predictor.")
    calibration = detector.calibration
    lines = Table(title=str(path), show_header=False, title_justify="left", title_style="bold")
    lines.add_column(style="cyan", no_wrap=True)
    lines.add_column(overflow="fold")
    lines.add_row("test rows", str(measured.rows))
    lines.add_row("accuracy", f"{measured.accuracy:.2%} deterministic, {measured.mc_accuracy:.2%} MC dropout")
    lines.add_row("NLL", f"{measured.nll:.4f} deterministic, {measured.mc_nll:.4f} MC dropout (nats)")
    sites = ", ".join(f"{site.kind} {site.p:g}" for site in predictor.committee.sites)
    lines.add_row("committee", f"{predictor.committee.num_samples} members; dropout sites: {sites}")
    lines.add_row(
        "promise",
        f"at most {calibration.alpha:.1%} false alarms, with confidence {1 - calibration.delta:.0%} "
        f"(p-value at or below {calibration.level:.4f}; {len(calibration.scores_N)} calibration rows)",
    )
    lines.add_row(
        "measured", f"{measured.flagged} of {measured.rows} test rows flagged ({measured.false_alarm_rate:.1%})"
    )
    for name, (found, count) in measured.strangers.items():
        lines.add_row("strangers", f"{found} of {count} {name} flagged ({found / count:.1%})")
    return lines


def _nll(probabilities_BC: npt.NDArray[np.float32], labels_B: npt.NDArray[np.int64]) -> float:
    """Summed negative log-likelihood; a probability that float32 rounds to 0 counts as its smallest number."""
    chosen_B = probabilities_BC[np.arange(len(labels_B)), labels_B].astype(np.float64)
    return float(-np.log(np.maximum(chosen_B, np.finfo(np.float32).tiny)).sum())
