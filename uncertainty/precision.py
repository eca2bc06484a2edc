"""The precision that uncertainty is measured in: single at least, whatever the network computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def single(x: Tensor) -> Tensor:
    """Give numbers in single precision; those in double stay as they are.

    Half precision holds about three digits, so that measures of different inputs would round to the same number.
    """
    return x if x.dtype in {torch.float32, torch.float64} else x.float()


def refuse_tf32() -> None:
    """Have GPUs multiply single precision as it is, in this process and from here on.

    By default torch lets them round the factors of convolutions to TF32, which keeps three digits: more than
    calibration allows for between two evaluations of one input.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def without_tf32() -> Iterator[None]:
    """The same for a while, after which everything is as it was."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    refuse_tf32()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
