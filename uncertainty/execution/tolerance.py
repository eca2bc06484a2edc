"""Rounding: how far two strategies' logits may lie apart."""

from __future__ import annotations

import torch
from torch import Tensor

# On the CPU in single precision, relative to the largest logit.
TOLERANCE = 1e-5
# Steps of the number format that sums in another order may be apart.
STEPS = 4
# Between neighbouring TF32 numbers, to which a GPU may round single precision before it multiplies.
TF32 = 2.0**-10


class Disagreement(RuntimeError):
    """A strategy does not give what the plain loop gives."""


def tolerance(x: Tensor) -> float:
    """Give the tolerance for a tensor of this type on this device, relative to its largest value."""
    eps = torch.finfo(x.dtype).eps
    if x.is_cuda and x.dtype == torch.float32:
        eps = TF32
    return max(TOLERANCE, STEPS * eps)


def agree(actual: Tensor, expected: Tensor) -> bool:
    """Say whether two strategies give the same logits up to rounding."""
    allowed = tolerance(expected)
    return torch.allclose(actual, expected, rtol=allowed, atol=allowed * float(expected.abs().max().clamp(min=1)))


def require_agreement(actual: Tensor, expected: Tensor) -> None:
    """Refuse logits that are not the expected ones up to rounding.

    Raises:
        Disagreement: They differ by more.
    """
    if not agree(actual, expected):
        raise Disagreement(
            f"its logits lie up to {float((actual - expected).abs().max()):.2g} from the expected ones, the largest of "
            f"which is {float(expected.abs().max()):.2g}"
        )
