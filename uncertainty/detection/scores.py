"""Scores: what may make an input strange, one class each, all with the same verbs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

from dubio.uncertainty.detection.blocks import Block
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
        reads_blocks: Whether it looks at what the network's blocks give.
        fits_classes: Whether fitting takes two training rows of every class.
        lender: Which other score, where it takes part, too, has learned all that this one would.
    """

    name: ClassVar[str]
    reason: ClassVar[str] = UNCERTAIN
    asks_members: ClassVar[bool] = False
    reads_blocks: ClassVar[bool] = False
    fits_classes: ClassVar[bool] = False
    lender: ClassVar[str | None] = None

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 50) -> Self:
        """Learn from the training split; most scores learn nothing.

        Args:
            train: The deterministic pass over training rows, without augmentation.
            labels_N: Their classes.
            k: Of the scores of nearest neighbours.
        """
        return cls()

    @classmethod
    def borrow(cls, lender: Score) -> Self:
        """The score that has learned what its lender has: the two share it."""
        return cls(**vars(lender))

    def borrows(self, lender: Score | None) -> bool:
        """Whether it shares with another score what it has learned."""
        return lender is not None and all(value is vars(lender)[name] for name, value in vars(self).items())

    @abstractmethod
    def score(self, outputs: Outputs) -> Tensor:
        """The scores, ``[B]``."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks that a fitted score looks at."""
        return ()


def move(fitted: Fitted, device: torch.device) -> Fitted:
    """The same fitted dataclass with its tensors on a device."""
    moved: Fitted = replace(
        fitted, **{field.name: _moved(getattr(fitted, field.name), device) for field in fields(fitted)}
    )
    return moved


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_moved(each, device) for each in value)
    return move(value, device) if is_dataclass(value) else value
