"""Block scores: how far from the training data an input looks on its way through the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dubio.uncertainty.detection.blocks import Block
from dubio.uncertainty.detection.gaussians import SHRINKAGE, ClassGaussians
from dubio.uncertainty.detection.measures import unit_norm
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.scores import UNFAMILIAR, Score
from dubio.uncertainty.errors import NoFeatures, UncertaintyError


@dataclass(frozen=True)
class BlockGaussians:
    """The classes as one block sees them.

    Attributes:
        name: Of the block.
        axis: Of the block's channels, see `dubio.uncertainty.detection.blocks.Block`.
        gaussians: Of its pooled output, of length 1.
        centre: Mean of the cube roots of the training rows' distances.
        spread: Their standard deviation (divisor n).
    """

    name: str
    axis: int
    gaussians: ClassGaussians
    centre: float
    spread: float

    def __post_init__(self) -> None:
        """Refuse a spread that cannot be divided by, and a block that is none."""
        Block(self.name, self.axis)
        if not self.spread > 0:
            raise UncertaintyError(f"Expected `spread` to be positive, but got {self.spread:g}.")

    @classmethod
    def fit(cls, block: Block, pooled_NF: Tensor, labels_N: Tensor, shrinkage: float) -> BlockGaussians:
        """Estimate the Gaussians, and how far the training rows themselves are from them.

        Raises:
            CalibrationSetTooSmall: If there are no rows, or a class has fewer than two.
        """
        gaussians = ClassGaussians.fit(unit_norm(pooled_NF), labels_N, shrinkage)
        fitted = cls(block.name, block.axis, gaussians, 0.0, 1.0)
        roots_N = fitted.strangeness(pooled_NF)
        spread = float(roots_N.std(correction=0))
        return cls(block.name, block.axis, gaussians, float(roots_N.mean()), spread if spread > 0 else 1.0)

    def strangeness(self, pooled_BF: Tensor) -> Tensor:
        """The cube root of the squared distance from the nearest class, standardised, ``[B]`` in float64.

        The cube root of a chi-squared number is close to normal, whatever its degrees of freedom, so blocks of
        different widths share one scale.
        """
        distance_B = self.gaussians.distances(unit_norm(pooled_BF)).to_nearest_B
        return (distance_B.pow(1 / 3) - self.centre) / self.spread


@dataclass(frozen=True)
class BlockMahalanobis(Score):
    """max_l min_c MD_lc(h_l / |h_l|): h_l is what block l gives, its mean and its maximum over the positions.

    Noise, constant inputs and those of another contrast look strange at the first blocks and pass as ordinary at the
    head. The distances of each block are standardised, see `BlockGaussians`.

    Source: Lee 2018 (several layers), Mueller and Hein 2025 (unit norm), Wilson and Hilferty 1931 (cube root).
    """

    name = "block_mahalanobis"
    reason = UNFAMILIAR
    reads_blocks = True
    fits_classes = True

    parts: tuple[BlockGaussians, ...]

    @classmethod
    def fit(cls, train: DeterministicPass, labels_N: Tensor, k: int = 0, shrinkage: float = SHRINKAGE) -> Self:
        """Estimate the Gaussians of every block that the pass has; every class that occurs must occur at least twice.

        Raises:
            NoFeatures: If it has none.
            CalibrationSetTooSmall: If there are no rows, or a class has fewer than two.
        """
        if not train.blocks:
            raise NoFeatures(
                "Expected a network with blocks whose outputs have positions, pixels or steps, for the score "
                f"`{cls.name}`, but this pass has none; leave it out of `scores`, or take input_mahalanobis."
            )
        return cls(
            tuple(
                BlockGaussians.fit(block, pooled_NF, labels_N, shrinkage) for block, pooled_NF in train.blocks.items()
            )
        )

    def score(self, outputs: Outputs) -> Tensor:
        """The largest standardised distance, ``[B]`` in float64."""
        seen = outputs.deterministic.blocks
        missing = [block.name for block in self.blocks if block not in seen]
        if missing:
            raise NoFeatures(
                f"Expected a pass that listened to the blocks {', '.join(missing[:3])}, as `FeatureTap.with_blocks` "
                "does, but this one did not."
            )
        parts = zip(self.parts, self.blocks, strict=True)
        return torch.stack([part.strangeness(seen[block]) for part, block in parts]).amax(0)

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(Block(part.name, part.axis) for part in self.parts)
