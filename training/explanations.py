"""What a checkpoint keeps of its training rows to explain flags: their numbers, and what they look like if it may."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dubio.models import InputSpec
from dubio.models.checkpoint.explanation_record import CHANNELS, ExplanationRecord, bank_of, thumbnail_shape
from dubio.training.errors import TrainingError
from dubio.training.splits.random_splits import IntArray
from dubio.uncertainty import Detector, Outputs
from dubio.uncertainty.detection.rounding import Rounding
from dubio.uncertainty.detection.single_scores import SingleScores


def require(spec: InputSpec, names: tuple[str, ...], budget: int) -> None:
    """Refuses to keep examples of inputs that cannot be shown, or without the score that would show them.

    Args:
        spec: What one input is.
        names: Of the scores.
        budget: Bytes that examples may take.

    Raises:
        TrainingError: Says what there is to do.
    """
    if not budget:
        return
    shown = spec.kind == "text" or (spec.kind == "image" and spec.shape[0] in CHANNELS)
    if not shown:
        raise TrainingError(
            f"Expected images of 1 or 3 channels, or texts, to keep examples of (`calibration.examples`), but the "
            f"inputs are of kind {spec.kind} and shape {list(spec.shape)}; leave it out."
        )
    if "neighbours" not in names:
        raise TrainingError(
            "Expected neighbours among `calibration.scores`, whose training rows `calibration.examples` shows, but got "
            f"{', '.join(names)}; add it, or leave `calibration.examples` out."
        )


def record(
    detector: Detector,
    outputs: Outputs,
    rounding: Rounding,
    spec: InputSpec,
    train_x: Tensor,
    rows_N: IntArray,
    bank_size: int,
    budget: int,
    known: ExplanationRecord | None,
) -> ExplanationRecord:
    """What explains the flags of a calibrated detector.

    Args:
        detector: Calibrated.
        outputs: The calibration split.
        rounding: As measured.
        spec: What one input is.
        train_x: Raw training rows; none where the detector's scores are those of an earlier calibration.
        rows_N: Their numbers in the source.
        bank_size: Of the score `neighbours`, as it was fitted.
        budget: Bytes that examples may take.
        known: Of the earlier calibration.

    Raises:
        TrainingError: If examples are wanted and there are no training rows to take them from.
    """
    ranks_SN = SingleScores.fit(detector, outputs, rounding).ranks_SN
    bank = bank_of(detector)
    if bank is None:
        return ExplanationRecord(ranks=ranks_SN, rows=None, examples=None)
    if not len(train_x):
        rows, examples = (known.rows, known.examples) if known else (None, None)
        if budget and examples is None:
            raise TrainingError(
                "Expected the training rows to keep examples of (`calibration.examples`), but this source does not "
                "hold them; calibrate on the source of the fit, or leave it out."
            )
        examples = None if examples is None or not budget else _within(examples, budget)
        return ExplanationRecord(ranks=ranks_SN, rows=rows, examples=examples)
    drawn_N = bank.draw(len(train_x), bank.k, bank_size)
    examples = _within(train_x[drawn_N], budget, lambda raw: _shrunk(raw, spec)) if budget else None
    return ExplanationRecord(ranks=ranks_SN, rows=torch.from_numpy(rows_N)[drawn_N], examples=examples)


def _within(rows: Tensor, budget: int, shrunk: Callable[[Tensor], Tensor] = torch.clone) -> Tensor:
    """The first rows, made small, that fit into the budget."""
    one = shrunk(rows[:1])
    most = budget // (one.numel() * one.element_size())
    if not most:
        raise TrainingError(
            f"Expected `calibration.examples` to be at least {one.numel() * one.element_size()} bytes, which one "
            f"example takes, but got {budget}; raise it, or leave it out."
        )
    return shrunk(rows[:most])


def _shrunk(raw: Tensor, spec: InputSpec) -> Tensor:
    """Tokens, or thumbnails from 0 to 255."""
    if spec.kind == "text":
        return raw.to(torch.int32)
    _, height, width = thumbnail_shape(spec)
    if (height, width) != tuple(raw.shape[2:]):
        raw = F.interpolate(raw, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    span = spec.high - spec.low or 1.0
    return ((raw - spec.low) / span * 255).round().clamp(0, 255).to(torch.uint8)
