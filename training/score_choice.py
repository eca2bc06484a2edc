"""The choice of scores: what makes an input strange, by default and by request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import nn

from dubio.models import InputSpec
from dubio.models.inputs import encoding
from dubio.uncertainty.detection import blocks
from dubio.uncertainty.detection.blocks import Block
from dubio.uncertainty.detection.knn import Bank
from dubio.uncertainty.detection.mahalanobis import MAX_INPUT_WIDTH
from dubio.uncertainty.detection.registry import SCORES

ScoreName = Literal[
    "mutual_information",
    "predictive_entropy",
    "expected_entropy",
    "predicted_std",
    "variation_ratio",
    "logit_disagreement",
    "max_softmax",
    "max_logit",
    "energy",
    "gen",
    "neighbours",
    "nnguide",
    "mahalanobis",
    "unit_mahalanobis",
    "relative_mahalanobis",
    "unit_relative_mahalanobis",
    "ddu",
    "vim",
    "core",
    "fdbd",
    "react",
    "feature_norm",
    "input_class_mahalanobis",
    "block_mahalanobis",
    "input_mahalanobis",
]
# Of each kind of input, without the backstop, as docs/concepts.md says how they were chosen.
TABLE: tuple[ScoreName, ...] = ("predictive_entropy", "unit_mahalanobis", "input_class_mahalanobis")
DEFAULT_SCORES: dict[str, tuple[ScoreName, ...]] = {
    "image": ("expected_entropy", "relative_mahalanobis"),
    "numbers": TABLE,
    "table": TABLE,
    "text": ("mutual_information", "vim", "fdbd"),
}


def default_scores(spec: InputSpec, found: Sequence[Block]) -> tuple[ScoreName, ...]:
    """What makes an input of this kind strange.

    The backstop for blatant strangers are the network's blocks, or, where it has none, the input itself. Tokens are
    names, and between names there is no distance; and the covariance of wide inputs would fill the memory.

    Args:
        spec: What one input is.
        found: The network's blocks.
    """
    narrow = math.prod(spec.shape) <= MAX_INPUT_WIDTH
    chosen = tuple(name for name in DEFAULT_SCORES[spec.kind] if narrow or name != "input_class_mahalanobis")
    if spec.kind == "text":
        return chosen
    if spec.kind == "image" and found:
        return (*chosen, "block_mahalanobis")
    return (*chosen, "input_mahalanobis") if narrow else chosen


def choose(
    spec: InputSpec, asked: tuple[ScoreName, ...] | None, network: nn.Module
) -> tuple[tuple[ScoreName, ...], tuple[Block, ...]]:
    """The scores that are fitted, and the blocks of the network that they look at.

    Args:
        spec: What one input is.
        asked: By name; by default those that suit the inputs.
        network: In eval mode.
    """
    if asked is not None and not any(SCORES[name].reads_blocks for name in asked):
        return asked, ()
    found = blocks.find(network, encoding.blank(spec, **encoding.place(network)))
    names = asked or default_scores(spec, found)
    return names, found if any(SCORES[name].reads_blocks for name in names) else ()


def with_bank(names: Sequence[str]) -> list[str]:
    """Those of the scores that keep training rows to compare inputs with."""
    return [name for name in names if issubclass(SCORES[name], Bank)]


def may_be_fitted(spec: InputSpec, asked: tuple[ScoreName, ...] | None) -> tuple[ScoreName, ...]:
    """The scores that are fitted, as far as it is known without the network."""
    return asked or default_scores(spec, ())
