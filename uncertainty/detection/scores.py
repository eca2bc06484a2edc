"""Scores: what may make an input strange, one class each, all with the same verbs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs

UNFAMILIAR = "unfamiliar"  # input or features are far from those of the training data
UNCERTAIN = "uncertain"  # the members disagree, or the probabilities are spread

Fitted = TypeVar("Fitted", bound=Any)  # a frozen dataclass


@dataclass(frozen=True)
class Score(ABC):
    """A number per input; higher = more out-of-distribution. The fields are what was learned from the training split.

    Attributes:
        name: How settings and checkpoints call it.
        reason: What a flag raised by this score means.
        asks_members: Whether the score looks at the members' answers, and then at nothing else.
    """

    name: ClassVar[str]
    reason: ClassVar[str] = UNCERTAIN
    asks_members: ClassVar[bool] = False

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 50) -> Self:
        """Learn from the training split; most scores learn nothing.

        Args:
            train: The deterministic pass over training rows, without augmentation.
            labels_N: Their classes.
            k: Of the nearest-neighbour score.
        """
        return cls()

    @abstractmethod
    def score(self, outputs: Outputs) -> Tensor:
        """The scores, ``[B]``."""

    def discount(self, rank_B: Tensor) -> Tensor:
        """The ranks ``[B]`` of this score as they count among those of other scores."""
        return rank_B


class MaxSoftmax(Score):
    """1 - max_c softmax(logits).

    Source: Hendrycks and Gimpel 2017, turned so that higher is stranger.
    """

    name = "max_softmax"

    def score(self, outputs: Outputs) -> Tensor:
        return 1 - outputs.deterministic.logits_BC.softmax(-1).amax(-1)


class Energy(Score):
    """Free energy -logsumexp(logits).

    Source: Liu 2020.
    """

    name = "energy"

    def score(self, outputs: Outputs) -> Tensor:
        return -outputs.deterministic.logits_BC.logsumexp(-1)


class MutualInformation(Score):
    """The members' disagreement in nats, see `dubio.uncertainty.detection.measures.Summary`."""

    name = "mutual_information"
    asks_members = True

    def score(self, outputs: Outputs) -> Tensor:
        return outputs.summary.mutual_information_B


class PredictiveEntropy(Score):
    """The total uncertainty in nats, see `dubio.uncertainty.detection.measures.Summary`."""

    name = "predictive_entropy"
    asks_members = True

    def score(self, outputs: Outputs) -> Tensor:
        return outputs.summary.predictive_entropy_B


def move(fitted: Fitted, device: torch.device) -> Fitted:
    """The same fitted dataclass with its tensors on a device."""
    values = {field.name: getattr(fitted, field.name) for field in fields(fitted)}
    moved: Fitted = replace(fitted, **{name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)})
    return moved
