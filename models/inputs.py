"""Raw inputs: checked against the input spec, then normalised into what the network eats."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from models.errors import InvalidInput
from models.spec import InputSpec


def check(spec: InputSpec, x: ArrayLike | Tensor) -> Tensor:
    """Raw inputs as a float32 tensor ``[B, *shape]`` on the CPU.

    Raises:
        InvalidInput: not numbers, no rows, a wrong shape, or a value that is not finite.
    """
    raw = _dense(x) if isinstance(x, Tensor) else _tensor(x)
    if raw.ndim == 0 or tuple(raw.shape[1:]) != spec.shape or not len(raw):
        raise InvalidInput(
            f"Expected inputs of shape [B, {', '.join(map(str, spec.shape))}] with B >= 1, but got {list(raw.shape)}."
        )
    raw = raw.float()
    rows = (~torch.isfinite(raw.flatten(1)).all(1)).nonzero().flatten().tolist()
    if rows:
        raise InvalidInput(
            f"Expected finite values, but input {rows[0]} has NaN, infinity or a number beyond float32; leave the "
            "input out, or fill in what is missing."
        )
    return raw


def normalise(spec: InputSpec, raw: Tensor) -> Tensor:
    """(raw - mean) / std along the first axis of an input, ``[B, *shape]``."""
    trailing = (-1, *([1] * (len(spec.shape) - 1)))
    mean = torch.tensor(spec.mean, dtype=raw.dtype, device=raw.device).view(trailing)
    std = torch.tensor(spec.std, dtype=raw.dtype, device=raw.device).view(trailing)
    return (raw - mean) / std


def outside(spec: InputSpec, raw: Tensor) -> Tensor:
    """Whether an input has a value outside [low, high], what the training split contained, ``[B]``."""
    flat = raw.flatten(1)
    return ((flat < spec.low) | (flat > spec.high)).any(1)


def refuse_overflow(spec: InputSpec, raw: Tensor, probs_BC: Tensor) -> None:
    """Refuse inputs so large that a network's probabilities for them are not finite.

    Raises:
        InvalidInput: names the first such input.
    """
    fine_B = torch.isfinite(probs_BC).all(-1)
    if not bool(fine_B.all()):
        row = int((~fine_B).nonzero()[0])
        raise InvalidInput(
            f"Expected values that the network can process, but input {row} makes its logits overflow (largest "
            f"magnitude {float(raw[row].abs().max()):g}; training values lay in [{spec.low:g}, {spec.high:g}]); scale "
            "it as the training data were."
        )


def _dense(x: Tensor) -> Tensor:
    if x.layout != torch.strided or x.dtype == torch.bool or x.is_complex() or x.is_meta or x.is_quantized:
        raise InvalidInput(f"Expected a dense tensor of real numbers, but got one of {x.dtype}, {x.layout}.")
    return x.detach().cpu()


def _tensor(x: ArrayLike) -> Tensor:
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise InvalidInput(f"Expected rows of equal length, but numpy says: {error}") from error
    if array.dtype.kind not in "fiu":
        raise InvalidInput(f"Expected numbers, but got values of type {array.dtype}.")
    # float32 overflow becomes infinity, which check() refuses by name; numpy need not warn as well.
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(array, dtype=np.float32))
