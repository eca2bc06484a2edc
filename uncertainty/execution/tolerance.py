"""Rounding: how far two strategies' logits may lie apart."""

from __future__ import annotations

import torch
from torch import Tensor

from dubio.uncertainty.magnitude import magnitude

# On the CPU in single precision, relative to the largest logit that counts.
TOLERANCE = 1e-5
# Steps of the number format that sums in another order may be apart.
STEPS = 4
# Between neighbouring TF32 numbers, to which a GPU may round single precision before it multiplies.
TF32 = 2.0**-10


class Disagreement(RuntimeError):
    """A strategy does not give what the plain loop gives."""


def tolerance(x: Tensor) -> float:
    """Give the tolerance for a tensor of this type on this device, relative to its magnitude."""
    eps = torch.finfo(x.dtype).eps
    if x.is_cuda and x.dtype == torch.float32:
        eps = TF32
    return max(TOLERANCE, STEPS * eps)


def agree(actual: Tensor, expected: Tensor) -> bool:
    """Say whether two strategies give the same logits up to rounding."""
    allowed = tolerance(expected)
    return torch.allclose(actual, expected, rtol=allowed, atol=allowed * max(1.0, magnitude(expected)))


def require_agreement(actual: Tensor, expected: Tensor) -> None:
    """Refuse logits that are not the expected ones up to rounding.

    Raises:
        Disagreement: They differ by more.
    """
    if not agree(actual, expected):
        # Between equal infinities there is no difference, though subtracting them gives none.
        apart = (actual - expected).abs().masked_fill(actual == expected, 0).max()
        raise Disagreement(
            f"its logits lie up to {float(apart):.2g} from the expected ones, the largest of which, among those that "
            f"give a class a probability, is {magnitude(expected):.2g}"
        )
