"""The detector: the largest rank among several scores, held against one conformal level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.ecdf import Ranks, RankTable
from dubio.uncertainty.detection.knn import NearestNeighbours
from dubio.uncertainty.detection.mahalanobis import Mahalanobis, RelativeMahalanobis
from dubio.uncertainty.detection.measures import Summary
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.errors import NotFitted, UncertaintyError


def max_softmax(logits_BC: Tensor) -> Tensor:
    """1 - max_c softmax(logits), ``[B]`` (Hendrycks and Gimpel 2017, turned so that higher is stranger)."""
    return 1 - logits_BC.softmax(-1).amax(-1)


def energy(logits_BC: Tensor, temperature: float = 1.0) -> Tensor:
    """Free energy -T logsumexp(logits / T), ``[B]`` (Liu 2020)."""
    return -temperature * (logits_BC / temperature).logsumexp(-1)


def mutual_information(summary: Summary) -> Tensor:
    """Members' disagreement in nats, ``[B]``; see :func:`dubio.uncertainty.detection.measures.mutual_information`."""
    return summary.mutual_information_B


def predictive_entropy(summary: Summary) -> Tensor:
    """Total uncertainty in nats, ``[B]``; see :func:`dubio.uncertainty.detection.measures.predictive_entropy`."""
    return summary.predictive_entropy_B


UNFAMILIAR = "unfamiliar"  # input or features are far from those of the training data
UNCERTAIN = "uncertain"  # the members disagree, or the probabilities are spread

Distance = NearestNeighbours | RelativeMahalanobis | Mahalanobis
DISTANCES: dict[str, type[Distance]] = {
    "neighbours": NearestNeighbours,
    "relative_mahalanobis": RelativeMahalanobis,
    "input_mahalanobis": Mahalanobis,
}
LOGIT_SCORES: dict[str, Callable[[Tensor], Tensor]] = {"max_softmax": max_softmax, "energy": energy}
MEMBER_SCORES: dict[str, Callable[[Summary], Tensor]] = {
    "mutual_information": mutual_information,
    "predictive_entropy": predictive_entropy,
}
OUTPUT_SCORES = (*LOGIT_SCORES, *MEMBER_SCORES)
DEFAULT_SCORES = ("mutual_information", "neighbours", "relative_mahalanobis", "input_mahalanobis")
# The input's own distance is a backstop: it is there for blatant strangers, which lie beyond every select score, and
# may spend little of the false-alarm rate that the other scores need for the subtle ones. Its share of larger select
# scores counts this many times over.
BACKSTOP_COST = 10.0
# The covariance of the inputs is a matrix of this width at most: 4096^2 numbers of four bytes are 64 MiB.
MAX_INPUT_WIDTH = 4096

Fitted = TypeVar("Fitted", bound=Ranks | Calibration | Distance)


@dataclass(frozen=True)
class Part:
    """One score of a detector.

    Attributes:
        name: a key of ``DISTANCES`` or ``OUTPUT_SCORES``.
        ranks: the score's ranks, fitted on the select split.
        fitted: what a distance learned from the training split; None for an output score.
    """

    name: str
    ranks: Ranks
    fitted: Distance | None

    @property
    def reason(self) -> str:
        """What a flag raised by this part means."""
        return UNCERTAIN if self.fitted is None else UNFAMILIAR

    @property
    def asks_members(self) -> bool:
        """Whether the score depends on what the members say."""
        return self.name in MEMBER_SCORES

    @property
    def is_backstop(self) -> bool:
        """Whether the part's ranks are lowered; see ``BACKSTOP_COST``."""
        return isinstance(self.fitted, Mahalanobis)

    def score(self, outputs: Outputs) -> Tensor:
        """The scores, ``[B]`` in float64."""
        return _score(self.name, self.fitted, outputs).double()

    def rank(self, outputs: Outputs) -> Tensor:
        """Ranks of the scores, ``[B]``; those of a backstop are lowered."""
        rank_B = self.ranks(self.score(outputs))
        return _lowered(rank_B) if self.is_backstop else rank_B


@dataclass(frozen=True)
class Verdict:
    """What a calibrated detector says about B inputs.

    Attributes:
        p_value_B: conformal p-values, float64.
        flagged_B: whether the p-value is at or below the level.
        level: the largest p-value that is flagged.
        reasons: for each input the reason of the part with the largest rank, flagged or not.
    """

    p_value_B: Tensor
    flagged_B: Tensor
    level: float
    reasons: list[str]


@dataclass(frozen=True)
class Detector:
    """Composite score and conformal level.

    The score of an input is the largest of its parts' ranks. Taking the maximum before the conformal step keeps the
    promise exact for the composite, with no price for testing several scores.

    Attributes:
        parts: at least one.
        calibration: None until :meth:`calibrate`.
    """

    parts: tuple[Part, ...]
    calibration: Calibration | None = None

    @classmethod
    def fit(
        cls,
        train: DeterministicPass,
        train_labels_N: Tensor,
        select: Outputs,
        names: Sequence[str] = DEFAULT_SCORES,
        k: int = 50,
    ) -> Detector:
        """Fit every part on the training split and its ranks on the select split.

        Args:
            train: the deterministic pass over training rows, without augmentation.
            train_labels_N: their classes.
            select: held-out rows that are used neither for training nor for calibration.
            names: which scores take part.
            k: of the nearest-neighbour score.

        Raises:
            UncertaintyError: an unknown, repeated or missing score name, or inputs too wide for their covariance.
            NoFeatures: a feature distance was asked for, and the network offers no features.
            CalibrationSetTooSmall: too few rows for a part.
        """
        known = [*DISTANCES, *OUTPUT_SCORES]
        if not names or len(set(names)) != len(names) or not set(names) <= set(known):
            raise UncertaintyError(f"Expected `scores` to be different names out of {known}, but got {list(names)}.")
        parts = []
        for name in names:
            distance = _fit_distance(name, train, train_labels_N, k) if name in DISTANCES else None
            parts.append(Part(name, Ranks.fit(_score(name, distance, select)), distance))
        return cls(tuple(parts))

    def calibrate(self, outputs: Outputs, alpha: float = 0.05, delta: float = 0.05) -> Detector:
        """The same detector with a level that keeps the promise; see :meth:`Calibration.fit`.

        Args:
            outputs: the calibration split, used for nothing else.
            alpha: promised upper bound on the false-alarm rate.
            delta: one minus the confidence of the promise.

        Raises:
            CalibrationSetTooSmall: too few rows for alpha and delta.
        """
        return replace(self, calibration=Calibration.fit(self.score(outputs), alpha, delta))

    def score(self, outputs: Outputs) -> Tensor:
        """The composite score, ``[B]`` in float64; higher = more out-of-distribution."""
        return self._ranks(outputs).amax(0)

    def judge(self, outputs: Outputs) -> Verdict:
        """P-values, flags and reasons.

        Raises:
            NotFitted: the detector is not calibrated.
        """
        if self.calibration is None:
            raise NotFitted("Expected a calibrated detector; call calibrate() with the calibration split first.")
        return self.verdict(self._ranks(outputs), self.calibration)

    def verdict(self, ranks_PB: Tensor, calibration: Calibration) -> Verdict:
        """P-values, flags and reasons of inputs whose parts have these ranks."""
        p_value_B = calibration.p_value(ranks_PB.amax(0))
        return Verdict(
            p_value_B=p_value_B,
            flagged_B=p_value_B <= calibration.level,
            level=calibration.level,
            reasons=[self.parts[part].reason for part in ranks_PB.argmax(0).tolist()],
        )

    def to(self, device: torch.device) -> Detector:
        """The same detector with its tensors on a device."""
        parts = tuple(
            Part(part.name, move(part.ranks, device), part.fitted and move(part.fitted, device)) for part in self.parts
        )
        return Detector(parts, self.calibration and move(self.calibration, device))

    def _ranks(self, outputs: Outputs) -> Tensor:
        ranks_PB = self._table(torch.stack([part.score(outputs) for part in self.parts]))
        for index, part in enumerate(self.parts):
            if part.is_backstop:
                ranks_PB[index] = _lowered(ranks_PB[index])
        return ranks_PB

    @cached_property
    def _table(self) -> RankTable:
        return RankTable.of([part.ranks for part in self.parts])


def _lowered(rank_B: Tensor) -> Tensor:
    return torch.where(rank_B < 1, 1 - BACKSTOP_COST * (1 - rank_B), rank_B)


def _fit_distance(name: str, train: DeterministicPass, labels_N: Tensor, k: int) -> Distance:
    if name == "neighbours":
        return NearestNeighbours.fit(train.features(), k)
    if name == "relative_mahalanobis":
        return RelativeMahalanobis.fit(train.features(), labels_N)
    width = train.inputs_BF.shape[1]
    if width > MAX_INPUT_WIDTH:
        raise UncertaintyError(
            f"Expected inputs of at most {MAX_INPUT_WIDTH} numbers for the score `input_mahalanobis`, but got {width}; "
            "leave it out of `scores`."
        )
    return Mahalanobis.fit(train.inputs_BF)


def _score(name: str, distance: Distance | None, outputs: Outputs) -> Tensor:
    if name in LOGIT_SCORES:
        return LOGIT_SCORES[name](outputs.deterministic.logits_BC)
    if distance is None:
        return MEMBER_SCORES[name](outputs.summary)
    if isinstance(distance, Mahalanobis):
        return distance(outputs.deterministic.inputs_BF)
    return distance(outputs.deterministic.features())


def move(fitted: Fitted, device: torch.device) -> Fitted:
    """The same with its tensors on a device."""
    values = {field.name: getattr(fitted, field.name) for field in fields(fitted)}
    moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
    return replace(fitted, **moved)
