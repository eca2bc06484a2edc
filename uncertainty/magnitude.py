"""The magnitude of logits, which rounding is relative to: of those alone that give a class a probability.

A network may mask classes, with -inf or with -1e6, say. Next to such a number all others would look alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

# e^-104 is 0 in single precision: a class whose logit lies farther below the largest has no probability.
SPAN = 104.0


def magnitude(logits: Tensor) -> float:
    """Give the largest magnitude among the finite logits ``[..., C]`` of classes with a probability; 0 for none."""
    counted = torch.isfinite(logits) & (logits >= logits.amax(-1, keepdim=True) - SPAN)
    return float(logits.abs().masked_fill(~counted, 0).max()) if logits.numel() else 0.0
