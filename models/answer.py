"""The answer: how a predictor and an ensemble alike turn raw inputs into a prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dubio.models.errors import InvalidInput
from dubio.models.inputs import encoding
from dubio.models.inputs.spec import InputSpec
from dubio.models.prediction import (
    AUTO,
    NOT_CALIBRATED_FOR_SAMPLES,
    OUT_OF_RANGE,
    Flags,
    MonteCarlo,
    Prediction,
    Samples,
    Work,
)
from dubio.uncertainty.detection.detector import Verdict
from dubio.uncertainty.detection.measures import Summary

Pass = TypeVar("Pass")  # what the deterministic pass over a batch leaves behind


@dataclass(frozen=True)
class Sampled:
    """What the members that were asked say about B inputs.

    Attributes:
        samples: How many were asked, or how many about each input, ``[B]``.
        summary: Of what they said.
        judge: Flags the inputs; called only where there is a promise, and if a flag is wanted.
    """

    samples: int | Tensor
    summary: Summary
    judge: Callable[[], Verdict]


class Members(Protocol):
    """The members that can be asked."""

    @property
    def num_samples(self) -> int:
        """How many they are."""


class Model(Protocol[Pass]):
    """What can answer: a predictor or an ensemble."""

    @property
    def input(self) -> InputSpec:
        """What one input is."""

    @property
    def committee(self) -> Members:
        """All members."""

    @property
    def no_promise(self) -> str | None:
        """Why nothing can be flagged, one of a prediction's reasons; None where there is a promise."""

    def encode(self, raw: Tensor) -> Tensor:
        """What the network eats of checked raw inputs ``[B, *input.shape]``, on its device."""

    def forward(self, x: Tensor) -> Pass:
        """The deterministic pass over encoded inputs."""

    def classify(self, forwarded: Pass) -> tuple[Tensor, Tensor]:
        """The deterministic class indices ``[B]`` and probabilities ``[B, C]``."""

    def sample(self, x: Tensor, forwarded: Pass, count: int) -> Sampled:
        """Ask so many members about encoded inputs."""

    def sample_adaptively(self, x: Tensor, forwarded: Pass) -> Sampled:
        """Ask about each encoded input as many members as it takes.

        Raises:
            InvalidInput: If nothing was learned about how many that are.
        """


def answer(model: Model[Pass], x: ArrayLike | Tensor, samples: Samples, work: Work) -> Prediction:
    """Both answers and the flag; see `dubio.models.Predictor.predict`."""
    total = model.committee.num_samples
    auto = isinstance(samples, str) and samples == AUTO
    count = total if samples is None or auto else samples
    if type(count) is not int or not 2 <= count <= total:
        raise InvalidInput(
            f"Expected `samples` to be an integer in [2, {total}], the committee's size, but got {count!r:.80}."
        )
    raw = encoding.check(model.input, x)
    with torch.inference_mode():
        encoded = model.encode(raw)
        forwarded = model.forward(encoded)
        label_B, probs_BC = model.classify(forwarded)
        encoding.refuse_overflow(model.input, raw, probs_BC)
        prediction = Prediction(0, label_B.cpu().numpy(), probs_BC.cpu().numpy(), monte_carlo=None, flags=None)
        if work == Work.DETERMINISTIC:
            return prediction
        sampled = model.sample_adaptively(encoded, forwarded) if auto else model.sample(encoded, forwarded, count)
        # Members may overflow where the network does not: what they keep is larger by 1 / (1 - p).
        encoding.refuse_overflow(model.input, raw, sampled.summary.mean_BC)
        flags = None
        if work == Work.FLAG:
            reason = model.no_promise or (NOT_CALIBRATED_FOR_SAMPLES if count != total else None)
            flags = Flags(None, None, None, [reason] * len(raw)) if reason else _flags(model, raw, sampled.judge())
        asked = sampled.samples if isinstance(sampled.samples, int) else sampled.samples.cpu().numpy()
        return replace(prediction, samples=asked, monte_carlo=_monte_carlo(sampled.summary), flags=flags)


def _flags(model: Model[Pass], raw: Tensor, verdict: Verdict) -> Flags:
    outside_B = encoding.outside(model.input, raw)
    rows = zip(verdict.flagged_B.tolist(), outside_B.tolist(), verdict.reasons, strict=True)
    return Flags(
        p_value=verdict.p_value_B.cpu().numpy(),
        flagged=verdict.flagged_B.cpu().numpy(),
        level=verdict.level,
        reasons=[(OUT_OF_RANGE if outside else reason) if flag else None for flag, outside, reason in rows],
    )


def _monte_carlo(summary: Summary) -> MonteCarlo:
    return MonteCarlo(
        label=summary.mean_BC.argmax(-1).cpu().numpy(),
        mean=summary.mean_BC.cpu().numpy(),
        std=summary.std_BC.cpu().numpy(),
        predictive_entropy=summary.predictive_entropy_B.cpu().numpy(),
        expected_entropy=summary.expected_entropy_B.cpu().numpy(),
        mutual_information=summary.mutual_information_B.cpu().numpy(),
    )
