"""Rounding: how far two ways of computing the same logits may lie apart."""

from __future__ import annotations

import torch
from torch import Tensor

# On the CPU in single precision, relative to the largest logit.
TOLERANCE = 1e-5
# Steps of the number format that sums in another order may be apart.
STEPS = 4
# Between neighbouring TF32 numbers, to which a GPU may round single precision before it multiplies.
TF32 = 2.0**-10


def tolerance(x: Tensor) -> float:
    """Relative to the largest value, for a tensor of this type on this device."""
    eps = torch.finfo(x.dtype).eps
    if x.is_cuda and x.dtype == torch.float32:
        eps = TF32
    return max(TOLERANCE, STEPS * eps)


def agree(actual: Tensor, expected: Tensor) -> bool:
    """Whether two strategies give the same logits up to rounding."""
    allowed = tolerance(expected)
    return torch.allclose(actual, expected, rtol=allowed, atol=allowed * float(expected.abs().max().clamp(min=1)))
