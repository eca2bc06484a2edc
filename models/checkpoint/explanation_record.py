"""The explanation record: what a checkpoint keeps so that a flag can be explained."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import field_validator, model_validator
from torch import Tensor

from dubio.models.errors import ModelError
from dubio.models.inputs.spec import InputSpec
from dubio.models.spec import StrictModel
from dubio.uncertainty import Detector
from dubio.uncertainty.detection.knn import NearestNeighbours
from dubio.uncertainty.detection.single_scores import SingleScores

THUMBNAIL = 32  # pixels along the longer side, at most
CHANNELS = (1, 3)  # of images that can be shown


class Example(StrictModel):
    """An input that is familiar to the model, to try it with.

    Attributes:
        raw: Float32 ``[*shape]``.
        source: ``held_out``, a row that the network was not trained on; or ``typical``, the middle of the training rows
            of a class number by number, and so no row of the data.
    """

    raw: Any
    source: Literal["held_out", "typical"]

    def check(self, spec: InputSpec) -> None:
        """Refuse one that is no input of the model.

        Raises:
            ModelError: Says what it should be.
        """
        raw = self.raw
        if not isinstance(raw, Tensor) or raw.dtype != torch.float32 or tuple(raw.shape) != spec.shape:
            shown = f"{raw.dtype} {list(raw.shape)}" if isinstance(raw, Tensor) else type(raw).__name__
            raise ModelError(f"expected `example.raw` to be float32 {list(spec.shape)}, but got {shown}.")
        whole = spec.kind != "text" or bool(((raw == raw.round()) & (raw >= 0) & (raw <= spec.high)).all())
        if not bool(torch.isfinite(raw).all()) or not whole:
            raise ModelError("expected `example.raw` to hold finite numbers, of a text its tokens, but it does not.")


class ExplanationRecord(StrictModel):
    """What explains a flag.

    Attributes:
        ranks: Of the calibration rows by each score, ascending, float64 ``[S, N]``; see `SingleScores`.
        rows: Numbers of the training rows that the score `neighbours` keeps, in the source of the fit, int64 ``[M]`` in
            the order of its bank; None without that score.
        examples: The first of these rows, as far as they may be kept: thumbnails uint8 ``[E, C, H, W]``, or of texts
            the tokens int32 ``[E, L]``; None where none may.
        example: None where the data have no input that is familiar and may be shown.
    """

    ranks: Any
    rows: Any
    examples: Any
    example: Example | None = None

    @field_validator("ranks", "rows", "examples")
    @classmethod
    def _tensors(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, Tensor):
            raise ValueError("Expected a tensor.")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ExplanationRecord:
        if self.ranks is None or self.ranks.ndim != 2 or not bool(torch.isfinite(self.ranks).all()):
            raise ValueError("Expected `ranks` to be finite, with two axes.")
        SingleScores(self.ranks)
        if self.rows is not None and (
            self.rows.dtype != torch.int64
            or self.rows.ndim != 1
            or bool((self.rows < 0).any())
            or len(self.rows.unique()) < len(self.rows)
        ):
            raise ValueError("Expected `rows` to hold every row number once, counted from 0, as int64 with one axis.")
        if self.examples is not None and not 0 < len(self.examples) <= (0 if self.rows is None else len(self.rows)):
            raise ValueError("Expected at least one of `examples`, and not more than `rows`.")
        return self

    def check(self, detector: Detector, spec: InputSpec) -> None:
        """Refuse a record that belongs to another detector or to inputs of another kind.

        Raises:
            ModelError: Names the field and the rule.
        """
        calibration = detector.calibration
        due = [len(detector.scores), 0 if calibration is None else len(calibration.scores_N)]
        if list(self.ranks.shape) != due:
            raise ModelError(
                f"expected `ranks` of scores and calibration rows, {due}, but got {list(self.ranks.shape)}."
            )
        bank = bank_of(detector)
        kept = 0 if bank is None else len(bank.bank_NF)
        if self.rows is not None and len(self.rows) != kept:
            raise ModelError(
                f"expected `rows` to number the {kept} training rows that are kept, but got {len(self.rows)}."
            )
        if self.example is not None:
            self.example.check(spec)
        if self.examples is not None:
            fits = _are_tokens if spec.kind == "text" else _are_thumbnails
            if not fits(self.examples, spec):
                raise ModelError(
                    f"expected `examples` to be thumbnails (uint8) of images, or tokens (int32) of texts, such as the "
                    f"model takes, but got {self.examples.dtype} {list(self.examples.shape)}."
                )


def bank_of(detector: Detector | None) -> NearestNeighbours | None:
    """The score whose training rows are shown as the nearest."""
    scores = () if detector is None else detector.scores
    return next((score for score in scores if isinstance(score, NearestNeighbours)), None)


def thumbnail_shape(spec: InputSpec) -> tuple[int, int, int]:
    """Channels, height and width of an image's thumbnail, which is never larger than the image."""
    channels, height, width = spec.shape
    scale = min(1.0, THUMBNAIL / max(height, width))
    return channels, max(1, math.floor(height * scale)), max(1, math.floor(width * scale))


def _are_tokens(examples: Tensor, spec: InputSpec) -> bool:
    whole = examples.dtype == torch.int32 and list(examples.shape[1:]) == list(spec.shape)
    return whole and bool(((examples >= 0) & (examples <= spec.high)).all())


def _are_thumbnails(examples: Tensor, spec: InputSpec) -> bool:
    small = examples.ndim == 4 and examples.shape[1] in CHANNELS and max(examples.shape[2:]) <= THUMBNAIL
    return spec.kind == "image" and examples.dtype == torch.uint8 and small and examples.numel() > 0
