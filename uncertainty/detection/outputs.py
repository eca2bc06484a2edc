"""Outputs: everything about a batch that a score may look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dubio.uncertainty.detection.blocks import Block
from dubio.uncertainty.detection.measures import Summary, single, summarise
from dubio.uncertainty.errors import NoFeatures

# How far logits may lie from what the head's weights make of the features, as a share of the largest: what half
# precision rounds.
HEAD_RTOL = 0.02

T = TypeVar("T")


@dataclass(frozen=True)
class Head:
    """The linear layer that makes the logits of the features.

    Attributes:
        weight_CF: Its weights, float64.
        bias_C: Its biases, float64; zeros where it has none.
    """

    weight_CF: Tensor
    bias_C: Tensor

    @classmethod
    def of(cls, layer: nn.Linear) -> Head:
        """The head that a layer is."""
        weight_CF = layer.weight.detach().double()
        bias_C = weight_CF.new_zeros(len(weight_CF)) if layer.bias is None else layer.bias.detach().double()
        return cls(weight_CF, bias_C)


@dataclass(frozen=True)
class DeterministicPass:
    """One eval-mode pass, in single precision at least.

    Attributes:
        inputs_BF: What the network ate, flattened.
        logits_BC: Deterministic logits.
        features_BF: Penultimate features; None where the network offers none.
        blocks: What blocks of the network gave, pooled over positions, ``[B, F]`` each; only of those asked for.
        layer: The head's module, whose weights scores of the head are fitted to; None where that is not known.
    """

    inputs_BF: Tensor
    logits_BC: Tensor
    features_BF: Tensor | None
    blocks: Mapping[Block, Tensor] = field(default_factory=dict)
    layer: nn.Linear | None = None
    _known: dict[object, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Widen what a network in half precision gave, and the tokens that a text is."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                object.__setattr__(self, name, single(value))

    def once(self, key: object, compute: Callable[[], T]) -> T:
        """What several scores ask about the same inputs, computed for the first of them.

        Args:
            key: What is computed, of what; equal for the same alone.
            compute: Gives the result, which nobody changes.
        """
        if key not in self._known:
            self._known[key] = compute()
        known: T = self._known[key]
        return known

    def features(self) -> Tensor:
        """The penultimate features.

        Raises:
            NoFeatures: If the network offers none.
        """
        if self.features_BF is None:
            raise NoFeatures(
                "Expected a network whose output is that of an nn.Linear, whose input then serves as features, but "
                "this one has none; calibrate with scores that need no features, such as mutual_information."
            )
        return self.features_BF

    def head(self) -> Head:
        """The layer that makes the logits of the features.

        Raises:
            NoFeatures: If the network offers none, or its weights do not say what the layer does.
        """
        features_BF = self.features().detach()
        if self.layer is None:
            raise NoFeatures(
                "Expected a pass that knows the network's last layer, as `FeatureTap` gives it, but this one does not."
            )
        head = Head.of(self.layer)
        made_BC = features_BF.double() @ head.weight_CF.T + head.bias_C
        slack = HEAD_RTOL * (float(made_BC.abs().amax()) if made_BC.numel() else 0.0)
        if not torch.allclose(made_BC, self.logits_BC.detach().double(), rtol=0.0, atol=slack):
            raise NoFeatures(
                f"Expected logits that are the features times the weights of the last layer plus its biases, but "
                f"{type(self.layer).__name__} makes others; calibrate with scores that do not look at its weights."
            )
        return head

    @staticmethod
    def cat(parts: Sequence[DeterministicPass]) -> DeterministicPass:
        """One pass out of those of several batches, in their order."""
        features = [part.features_BF for part in parts if part.features_BF is not None]
        return DeterministicPass(
            inputs_BF=torch.cat([part.inputs_BF for part in parts]),
            logits_BC=torch.cat([part.logits_BC for part in parts]),
            features_BF=torch.cat(features) if features else None,
            blocks={block: torch.cat([part.blocks[block] for part in parts]) for block in parts[0].blocks},
            layer=parts[0].layer,
        )

    def map(self, change: Callable[[Tensor], Tensor]) -> DeterministicPass:
        """The pass with every tensor changed in the same way."""
        return DeterministicPass(
            inputs_BF=change(self.inputs_BF),
            logits_BC=change(self.logits_BC),
            features_BF=None if self.features_BF is None else change(self.features_BF),
            blocks={block: change(pooled_BF) for block, pooled_BF in self.blocks.items()},
            layer=self.layer,
        )

    def tensors(self) -> list[Tensor]:
        """All that it holds of the batch."""
        features = [] if self.features_BF is None else [self.features_BF]
        return [self.inputs_BF, self.logits_BC, *features, *self.blocks.values()]

    def take(self, rows_R: Tensor | slice) -> DeterministicPass:
        """The pass of some rows, by index."""
        return self.map(lambda values: values[rows_R])


@dataclass(frozen=True)
class Outputs:
    """One batch as the predictor saw it.

    Attributes:
        deterministic: The eval-mode pass.
        probs_KBC: The members' probabilities.
    """

    deterministic: DeterministicPass
    probs_KBC: Tensor

    @cached_property
    def summary(self) -> Summary:
        """What the members say, in a few measures."""
        return summarise(self.probs_KBC)

    def take(self, rows_R: Tensor | slice) -> Outputs:
        """The outputs of some rows, by index."""
        return Outputs(self.deterministic.take(rows_R), self.probs_KBC[:, rows_R])

    @staticmethod
    def cat(parts: Sequence[Outputs]) -> Outputs:
        """One outputs out of those of several batches, in their order."""
        return Outputs(
            deterministic=DeterministicPass.cat([part.deterministic for part in parts]),
            probs_KBC=torch.cat([part.probs_KBC for part in parts], dim=1),
        )
