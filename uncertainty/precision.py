"""The precision that products are computed in: TF32 is refused where a promise is made or kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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


def keeps_single(device: torch.device) -> bool:
    """Whether products in single precision round no more than that; torch may have been told that they may."""
    # An object stands in for the module, which a type checker does not see.
    told: str = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    return device.type == "cpu" and told in {"none", "ieee"}
