"""Answers: everything that a report tells about some rows, asked of the predictor in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dubio.models import Predictor
from dubio.training.errors import TrainingError
from dubio.training.evaluation import DETERMINISTIC, MC
from dubio.uncertainty import Calibration, Detector, Outputs
from dubio.uncertainty.detection import temperature
from dubio.uncertainty.detection.measures import Summary, summarise

Batches = Callable[[Tensor], Iterator[Tensor]]


@dataclass(frozen=True)
class Settling:
    """How far the answer of the first k members lies from that of all, row by row.

    Attributes:
        members: k, rising to all.
        mean_kB: Largest difference of the mean over the classes.
        std_kB: The same of the standard deviation.
    """

    members: tuple[int, ...]
    mean_kB: Tensor
    std_kB: Tensor


@dataclass(frozen=True)
class Answers:
    """What the predictor says about B rows.

    Attributes:
        probs: Probabilities ``[B, C]`` by answer.
        before: The same without temperature.
        summary: Of the members.
        score_B: The composite score.
        p_value_B: Of that.
        flagged_B: Whether that is at or below the level.
        reasons: Of the score with the largest rank, flagged or not.
        settling: How the members' answer settles.
    """

    probs: dict[str, Tensor]
    before: dict[str, Tensor]
    summary: Summary
    score_B: Tensor
    p_value_B: Tensor
    flagged_B: Tensor
    reasons: list[str]
    settling: Settling


def fitted(predictor: Predictor) -> tuple[Detector, Calibration]:
    """The detector and its promise.

    Raises:
        TrainingError: If the predictor has none.
    """
    detector = predictor.detector
    if detector is None or detector.calibration is None:
        raise TrainingError("Expected a calibrated predictor; run `dubio-train calibrate` first.")
    return detector, detector.calibration


def ask(predictor: Predictor, x: Tensor, batches: Batches) -> Answers:
    """Both answers, and the detector's, from all members.

    Args:
        predictor: Calibrated.
        x: Raw rows, at least one.
        batches: Splits them.
    """
    detector, calibration = fitted(predictor)
    with torch.inference_mode():
        parts = [_batch(predictor, detector, predictor.outputs(batch)) for batch in batches(x)]
    joined = {name: torch.cat([part[name] for part in parts], dim=-1 if name in _LAST else 0) for name in parts[0]}
    verdict = detector.verdict(joined["ranks"], calibration)
    return Answers(
        probs={DETERMINISTIC: joined["deterministic"], MC: joined["mean_BC"]},
        before={DETERMINISTIC: joined["deterministic before"], MC: joined["mc before"]},
        summary=Summary(**{name: joined[name] for name in Summary.__dataclass_fields__}),
        score_B=verdict.score_B,
        p_value_B=verdict.p_value_B,
        flagged_B=verdict.flagged_B,
        reasons=verdict.reasons,
        settling=Settling(_sizes(predictor.committee.num_samples), joined["mean gap"], joined["std gap"]),
    )


_LAST = ("ranks", "mean gap", "std gap")  # whose rows are the last axis


def _sizes(members: int) -> tuple[int, ...]:
    return (*(2**power for power in range(1, members.bit_length()) if 2**power < members), members)


def _batch(predictor: Predictor, detector: Detector, outputs: Outputs) -> dict[str, Tensor]:
    logits_BC, probs_KBC, summary = outputs.deterministic.logits_BC, outputs.probs_KBC, outputs.summary
    applied = predictor.temperature
    few = [summarise(probs_KBC[:members]) for members in _sizes(predictor.committee.num_samples)]
    return {
        "deterministic": (logits_BC / applied.deterministic).softmax(-1),
        "deterministic before": logits_BC.softmax(-1),
        "mc before": temperature.undo(probs_KBC, applied.mc).mean(0),
        **vars(summary),
        "ranks": detector.rank(outputs),
        "mean gap": torch.stack([(each.mean_BC - summary.mean_BC).abs().amax(-1) for each in few]),
        "std gap": torch.stack([(each.std_BC - summary.std_BC).abs().amax(-1) for each in few]),
    }
