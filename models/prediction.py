"""The prediction: both answers and the flag, for a batch, as arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubio.models import batched
from dubio.models.decision import Decision, LabelSetRows
from dubio.models.errors import InvalidInput, ModelError
from dubio.models.explanation import Explanation
from dubio.models.inputs import encoding
from dubio.models.inputs.spec import InputSpec
from dubio.uncertainty.detection.answers import Answers
from dubio.uncertainty.detection.detector import Verdict
from dubio.uncertainty.detection.measures import Summary

OUT_OF_RANGE = "out_of_range"  # a raw value outside what the training split contained
NOT_CALIBRATED = "not_calibrated"
NOT_CALIBRATED_FOR_SAMPLES = "not_calibrated_for_these_samples"

AUTO: Final = "auto"
"""As many members as the label and the flag of each row need; see `dubio.uncertainty.detection.adaptive`."""
Samples = int | Literal["auto"] | None
"""How many members to ask: a number, `AUTO`, or None for all."""

EXPLAINED_ROWS = 256  # at a time: distances to all rows of the bank are taken

Part = TypeVar("Part")


class Work(IntEnum):
    """How much of a prediction to compute; each includes the ones before it, the flag also the decision."""

    DETERMINISTIC = 0
    MC = 1
    LABEL_SET = 2
    FLAG = 3


@dataclass(frozen=True)
class MonteCarlo:
    """What the members say; see `Prediction`."""

    label: NDArray[np.int64]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    predictive_entropy: NDArray[np.float32]
    expected_entropy: NDArray[np.float32]
    mutual_information: NDArray[np.float32]


@dataclass(frozen=True)
class Flags:
    """What the detector says; see `Prediction`.

    Attributes:
        ranks: Of the inputs by the scores of each checkpoint, ``[B, S]``, for who asks for an explanation.
        loudest: Which checkpoint gave the reason, ``[B]``.
    """

    p_value: NDArray[np.float64] | None
    flagged: NDArray[np.bool_] | None
    level: float | None
    reasons: list[str | None]
    ranks: tuple[NDArray[np.float64], ...] | None = None
    loudest: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Prediction:
    """What a predictor says about B inputs with C classes.

    Attributes:
        samples: How many members answered; 0 if none was asked. ``[B]`` where each input asked for as many as it took.
        label: ``[B]``, class index of the deterministic prediction.
        probabilities: ``[B, C]``, deterministic.
        monte_carlo: None if only the deterministic prediction was asked for.
        flags: None if no flag was asked for.
        decisions: One a risk, in the order of the calibration; None if no flag was asked for.
        label_sets: None if neither label sets nor a flag were asked for.
        explanations: One an input; None if none were asked for.
    """

    samples: int | NDArray[np.int64]
    label: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    monte_carlo: MonteCarlo | None
    flags: Flags | None
    decisions: tuple[Decision, ...] | None = None
    label_sets: LabelSetRows | None = None
    explanations: list[Explanation] | None = None

    @property
    def mc_samples(self) -> NDArray[np.int32]:
        """``[B]``, how many members answered each input."""
        return np.broadcast_to(np.asarray(self.samples, dtype=np.int32), self.label.shape)

    @property
    def mc_label(self) -> NDArray[np.int64]:
        """``[B]``, class index of the largest mean."""
        return _require(self.monte_carlo).label

    @property
    def mc_mean(self) -> NDArray[np.float32]:
        """``[B, C]``, mean probabilities over the members."""
        return _require(self.monte_carlo).mean

    @property
    def mc_std(self) -> NDArray[np.float32]:
        """``[B, C]``, standard deviation over the members (divisor K)."""
        return _require(self.monte_carlo).std

    @property
    def predictive_entropy(self) -> NDArray[np.float32]:
        """``[B]``, total uncertainty in nats."""
        return _require(self.monte_carlo).predictive_entropy

    @property
    def expected_entropy(self) -> NDArray[np.float32]:
        """``[B]``, how unsure the members are, each by itself, in nats."""
        return _require(self.monte_carlo).expected_entropy

    @property
    def mutual_information(self) -> NDArray[np.float32]:
        """``[B]``, how far the members disagree, in nats."""
        return _require(self.monte_carlo).mutual_information

    @property
    def p_value(self) -> NDArray[np.float64] | None:
        """``[B]``, conformal; None without a calibration that applies."""
        return _require(self.flags).p_value

    @property
    def flagged(self) -> NDArray[np.bool_] | None:
        """``[B]``, p-value at or below the level; None without a calibration that applies."""
        return _require(self.flags).flagged

    @property
    def level(self) -> float | None:
        """The largest p-value that is flagged; None without a calibration that applies."""
        return _require(self.flags).level

    @property
    def reasons(self) -> list[str | None]:
        """For each input ``unfamiliar``, ``uncertain`` or ``out_of_range`` where flagged, None where not.

        Without a calibration that applies, ``not_calibrated`` or ``not_calibrated_for_these_samples``.
        """
        return _require(self.flags).reasons

    @property
    def accepted(self) -> NDArray[np.bool_] | None:
        """``[B]``, whether the answer is accepted at the first of the calibrated risks; None without such a promise."""
        return _require(self.decisions)[0].accepted

    @property
    def label_set(self) -> NDArray[np.bool_] | None:
        """``[B, C]``, whether the class is in the label set; None without a calibration that applies."""
        return _require(self.label_sets).contains

    def rows(self, start: int, stop: int) -> Prediction:
        """The prediction of some of the inputs."""
        return self.split([slice(start, stop)])[0]

    def split(self, parts: Sequence[slice]) -> list[Prediction]:
        """The predictions of some of the inputs, and of others."""
        predictions: list[Prediction] = batched.split(self, parts)
        return predictions

    @staticmethod
    def join(parts: Sequence[Prediction]) -> Prediction:
        """The prediction of the inputs of several, which were asked for the same."""
        prediction: Prediction = batched.join(parts)
        return prediction


def _require(part: Part | None) -> Part:
    if part is None:
        raise ModelError("Expected a part of the prediction that was asked for; call predict() with more `work`.")
    return part


Pass = TypeVar("Pass")  # what the deterministic pass over a batch leaves behind


@dataclass(frozen=True)
class Sampled:
    """What the members that were asked say about B inputs.

    Attributes:
        samples: How many were asked, or how many about each input, ``[B]``.
        summary: Of what they said.
        judge: Flags the inputs; called only where there is a promise, and if a flag is wanted.
        decide: Accepts answers, given what was judged; called where `judge` is.
        cover: Gives the label sets; called only where there is a promise, and if they are wanted.
    """

    samples: int | Tensor
    summary: Summary
    judge: Callable[[], Verdict]
    decide: Callable[[Answers, Verdict], tuple[Decision, ...]]
    cover: Callable[[Answers], LabelSetRows]


class Members(Protocol):
    """The members that can be asked."""

    @property
    def num_samples(self) -> int:
        """How many they are."""


class Model(ABC, Generic[Pass]):
    """What can answer: a predictor or an ensemble.

    Attributes:
        input: What one input is.
        committee: All members.
        most_rows: Larger batches are divided; None where no batch is too large.
    """

    input: InputSpec
    committee: Members
    most_rows: int | None

    def explain(self, x: encoding.Inputs, prediction: Prediction) -> Prediction:
        """The same prediction with its `explanations`: why each input was flagged, or was not.

        It takes one more deterministic pass. Where no promise applies there is nothing to explain.

        Args:
            x: The inputs that were predicted.
            prediction: Of these inputs, with the flag.

        Raises:
            InvalidInput: If these are not so many inputs, or as `predict`.
            ModelError: If the prediction has no flag.
        """
        raw, flags = encoding.check(self.input, x), _require(prediction.flags)
        if len(raw) != len(prediction.label):
            raise InvalidInput(f"Expected the {len(prediction.label)} inputs of the prediction, but got {len(raw)}.")
        if flags.ranks is None or flags.loudest is None:
            return replace(prediction, explanations=[Explanation()] * len(raw))
        explanations: list[Explanation] = []
        rows = min(self.most_rows or EXPLAINED_ROWS, EXPLAINED_ROWS)
        with torch.inference_mode():
            for start in range(0, len(raw), rows):
                part = slice(start, start + rows)
                ranks = tuple(ranks_BS[part] for ranks_BS in flags.ranks)
                explanations += self.explain_rows(raw[part], ranks, flags.loudest[part])
        return replace(prediction, explanations=explanations)

    def predict(self, x: encoding.Inputs, *, samples: Samples = None, work: Work = Work.FLAG) -> Prediction:
        """Both answers and the flag.

        Args:
            x: Raw inputs ``[B, *input.shape]``; for a table also a data frame of pandas or polars, a list of rows by
                column, or a single one; for text a list of texts, or a single one.
            samples: Ask only so many members, in [2, K]; all by default. A predictor asks its first ones, an ensemble
                takes them in turn from its committees. The flag was calibrated for all members, so with fewer there is
                none. ``"auto"`` asks about each input as many as it takes, and keeps the promise; see
                `dubio.uncertainty.detection.adaptive`.
            work: How much to compute: all by default.

        Raises:
            InvalidInput: If the shape is wrong, values are not finite or overflow the network, or ``samples`` is out
                of range or ``"auto"`` although nothing was learned about it.
        """
        total = self.committee.num_samples
        auto = isinstance(samples, str) and samples == AUTO
        count = total if samples is None or auto else samples
        if type(count) is not int or not 2 <= count <= total:
            raise InvalidInput(
                f"Expected `samples` to be an integer in [2, {total}], the committee's size, but got {count!r:.80}."
            )
        raw = encoding.check(self.input, x)
        if self.most_rows is not None and len(raw) > self.most_rows:
            parts = raw.split(self.most_rows)
            return Prediction.join([self.predict(part, samples=samples, work=work) for part in parts])
        with torch.inference_mode():
            encoded = self.encode(raw)
            forwarded = self.forward(encoded)
            label_B, probs_BC = self.classify(forwarded)
            encoding.refuse_overflow(self.input, raw, probs_BC)
            prediction = Prediction(0, label_B.cpu().numpy(), _float32(probs_BC), monte_carlo=None, flags=None)
            if work == Work.DETERMINISTIC:
                return prediction
            sampled = self.sample_adaptively(encoded, forwarded) if auto else self.sample(encoded, forwarded, count)
            # Members may overflow where the network does not: what they keep is larger by 1 / (1 - p).
            encoding.refuse_overflow(self.input, raw, sampled.summary.mean_BC)
            asked = sampled.samples if isinstance(sampled.samples, int) else sampled.samples.cpu().numpy()
            prediction = replace(prediction, samples=asked, monte_carlo=_monte_carlo(sampled.summary))
            if work == Work.MC:
                return prediction
            fewer = NOT_CALIBRATED_FOR_SAMPLES if count != total else None
            reason = self.no_promise or fewer
            answers = Answers(label_B, probs_BC, sampled.summary.mean_BC)
            prediction = replace(
                prediction, label_sets=self.uncovered(reason) if fewer and reason else sampled.cover(answers)
            )
            if work == Work.LABEL_SET:
                return prediction
            if reason:
                flags = Flags(None, None, None, [reason] * len(raw))
                return replace(prediction, flags=flags, decisions=self.undecided(reason))
            verdict = sampled.judge()
            flags = _flags(self.input, raw, verdict)
            return replace(prediction, flags=flags, decisions=sampled.decide(answers, verdict))

    @abstractmethod
    def explain_rows(
        self, raw: Tensor, ranks: tuple[NDArray[np.float64], ...], loudest: NDArray[np.int64]
    ) -> list[Explanation]:
        """Explain what was said about checked raw inputs ``[B, *input.shape]``; the rest as in `Flags`."""

    @property
    @abstractmethod
    def no_promise(self) -> str | None:
        """Why nothing can be flagged, one of a prediction's reasons; None where there is a promise."""

    @property
    @abstractmethod
    def asks_adaptively(self) -> bool:
        """Whether ``samples`` may be ``"auto"``."""

    @abstractmethod
    def undecided(self, reason: str) -> tuple[Decision, ...]:
        """No decision at any of the calibrated risks, and why."""

    @abstractmethod
    def uncovered(self, reason: str) -> LabelSetRows:
        """No label sets, and why."""

    @abstractmethod
    def encode(self, raw: Tensor) -> Tensor:
        """What the network eats of checked raw inputs ``[B, *input.shape]``, on its device."""

    @abstractmethod
    def forward(self, x: Tensor) -> Pass:
        """The deterministic pass over encoded inputs."""

    @abstractmethod
    def classify(self, forwarded: Pass) -> tuple[Tensor, Tensor]:
        """The deterministic class indices ``[B]`` and probabilities ``[B, C]``."""

    @abstractmethod
    def sample(self, x: Tensor, forwarded: Pass, count: int) -> Sampled:
        """Ask so many members about encoded inputs."""

    @abstractmethod
    def sample_adaptively(self, x: Tensor, forwarded: Pass) -> Sampled:
        """Ask about each encoded input as many members as it takes.

        Raises:
            InvalidInput: If nothing was learned about how many that are.
        """


def _flags(input_spec: InputSpec, raw: Tensor, verdict: Verdict) -> Flags:
    outside_B = encoding.outside(input_spec, raw)
    rows = zip(verdict.flagged_B.tolist(), outside_B.tolist(), verdict.reasons, strict=True)
    return Flags(
        p_value=verdict.p_value_B.cpu().numpy(),
        flagged=verdict.flagged_B.cpu().numpy(),
        level=verdict.level,
        reasons=[(OUT_OF_RANGE if outside else reason) if flag else None for flag, outside, reason in rows],
        ranks=tuple(ranks_SB.T.cpu().numpy() for ranks_SB in verdict.ranks),
        loudest=verdict.loudest_B.numpy(),
    )


def _monte_carlo(summary: Summary) -> MonteCarlo:
    return MonteCarlo(
        label=summary.mean_BC.argmax(-1).cpu().numpy(),
        mean=_float32(summary.mean_BC),
        std=_float32(summary.std_BC),
        predictive_entropy=_float32(summary.predictive_entropy_B),
        expected_entropy=_float32(summary.expected_entropy_B),
        mutual_information=_float32(summary.mutual_information_B),
    )


def _float32(x: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(x.numpy(force=True), dtype=np.float32)
