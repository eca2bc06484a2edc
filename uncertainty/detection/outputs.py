"""Outputs: everything about a batch that a score may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dubio.uncertainty.detection.measures import Summary, summarise
from dubio.uncertainty.errors import NoFeatures


@dataclass(frozen=True)
class DeterministicPass:
    """One eval-mode pass.

    Attributes:
        inputs_BF: What the network ate, flattened.
        logits_BC: Deterministic logits.
        features_BF: Penultimate features; None where the network offers none.
    """

    inputs_BF: Tensor
    logits_BC: Tensor
    features_BF: Tensor | None

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

    @staticmethod
    def cat(parts: Sequence[DeterministicPass]) -> DeterministicPass:
        """One pass out of those of several batches, in their order."""
        features = [part.features_BF for part in parts if part.features_BF is not None]
        return DeterministicPass(
            inputs_BF=torch.cat([part.inputs_BF for part in parts]),
            logits_BC=torch.cat([part.logits_BC for part in parts]),
            features_BF=torch.cat(features) if features else None,
        )


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

    @staticmethod
    def cat(parts: Sequence[Outputs]) -> Outputs:
        """One outputs out of those of several batches, in their order."""
        return Outputs(
            deterministic=DeterministicPass.cat([part.deterministic for part in parts]),
            probs_KBC=torch.cat([part.probs_KBC for part in parts], dim=1),
        )
