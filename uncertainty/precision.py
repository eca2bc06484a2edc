"""The precision that uncertainty is measured in: single at least, whatever the network computes in."""

from __future__ import annotations

import torch
from torch import Tensor


def single(x: Tensor) -> Tensor:
    """Give numbers in single precision; those in double stay as they are.

    Half precision holds about three digits, so that measures of different inputs would round to the same number.
    """
    return x if x.dtype in {torch.float32, torch.float64} else x.float()
