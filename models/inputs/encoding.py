"""Raw inputs: checked against the input spec, then encoded into what the network eats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from dubio.models.errors import InvalidInput
from dubio.models.inputs import frame
from dubio.models.inputs.spec import InputSpec
from dubio.models.spec import shortest

# 32 x 32 pixels are about what a person can still look through.
MAX_EXAMPLE = 1024


Inputs = ArrayLike | Tensor | Mapping[str, Any]
"""Inputs as a user has them; a data frame of pandas or polars is an array to a type checker."""


def check(spec: InputSpec, x: Inputs) -> Tensor:
    """Raw inputs as a float32 tensor ``[B, *shape]`` on the CPU.

    Args:
        spec: Of one input.
        x: Raw inputs; or, for a table, a list of rows by column, a single one, or a data frame of pandas or polars, and
            for text a list of texts or a single one.

    Raises:
        InvalidInput: Not numbers, no rows, a wrong shape, a value that is not finite, or no token.
    """
    if spec.reader is not None or isinstance(x, Mapping | str):
        x = frame.rows(x, spec.reader)
    if isinstance(x, list | tuple) and x and isinstance(x[0], str | Mapping):
        x = _read(spec, x)
    raw = _dense(x) if isinstance(x, Tensor) else _tensor(x)  # type: ignore[arg-type]  # a mapping was read
    if raw.ndim == 0 or tuple(raw.shape[1:]) != spec.shape or not len(raw):
        raise InvalidInput(
            f"Expected inputs of shape [B, {', '.join(map(str, spec.shape))}] with B >= 1, but got {list(raw.shape)}."
        )
    # Row-major, as the network was traced: images whose channels were last may come as a view.
    raw = raw.float().contiguous()
    finite = torch.isfinite(raw)
    if not bool(finite.all()):
        row = int((~finite.flatten(1).all(1)).nonzero()[0])
        raise InvalidInput(
            f"Expected finite values, but input {row} has NaN, infinity or a number beyond float32; leave the "
            "input out, or fill in what is missing."
        )
    if spec.kind == "text":
        fine = (raw == raw.round()) & (raw >= spec.low) & (raw <= spec.high)
        if not bool(fine.all()):
            row = int((~fine.all(1)).nonzero()[0])
            raise InvalidInput(
                f"Expected tokens from {spec.low:g} to {spec.high:g}, but input {row} has another number; send texts."
            )
    return raw


@dataclass(frozen=True)
class Normalisation:
    """(raw - mean) / std along the first axis of an input.

    Attributes:
        mean: ``[C, 1, ...]``, to be broadcast over raw inputs ``[B, C, ...]``.
        std: Like ``mean``.
        dtype: Of the results.
    """

    mean: Tensor
    std: Tensor
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(
        cls, spec: InputSpec, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Normalisation:
        """As the spec says, on the device that serves."""
        trailing = (-1, *([1] * (len(spec.shape) - 1)))
        mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (spec.mean, spec.std))
        return cls(mean.view(trailing), std.view(trailing), dtype)

    def __call__(self, raw: Tensor) -> Tensor:
        """What the network eats of raw inputs ``[B, *shape]``."""
        return ((raw.to(self.mean.device) - self.mean) / self.std).to(self.dtype)


class Place(TypedDict):
    """Where a network's inputs belong, and in which precision."""

    device: torch.device
    dtype: torch.dtype


def place(network: nn.Module) -> Place:
    """Where the network's own numbers are; in single precision if it has none."""
    tensors = [*network.parameters(), *network.buffers()]
    floats = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    return {
        "device": tensors[0].device if tensors else torch.device("cpu"),
        "dtype": floats[0] if floats else torch.float32,
    }


def encoder(
    spec: InputSpec, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Callable[[Tensor], Tensor]:
    """What makes of raw inputs ``[B, *shape]`` what the network eats: normalised numbers, or tokens ``[B, L]``."""
    if spec.kind == "text":
        return lambda raw: raw.to(device, torch.int64)
    return Normalisation.of(spec, device, dtype)


def blank(
    spec: InputSpec, rows: int = 1, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Encoded inputs ``[rows, *shape]`` to try a network with: the mean of the training rows, or one token after the
    other."""
    if spec.kind == "text":
        tokens_L = torch.arange(math.prod(spec.shape), device=device) % (int(spec.high) + 1)
        return tokens_L.expand(rows, -1)
    return torch.zeros((rows, *spec.shape), device=device, dtype=dtype)


def noise(spec: InputSpec, rows: int, seed: int = 0) -> Tensor:
    """Raw inputs ``[rows, *shape]``, uniform over the range of the training rows."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand((rows, *spec.shape), generator=generator)
    if spec.kind == "text":
        return (uniform * (spec.high + 1)).floor().clamp(max=spec.high)
    return spec.low + uniform * (spec.high - spec.low)


def outside(spec: InputSpec, raw: Tensor) -> Tensor:
    """Whether an input holds what the training split did not, ``[B]``: numbers beyond its smallest and largest, of a
    table beyond those of their column, a category or, in a whole text, no word that it had."""
    if spec.reader is not None:
        return spec.reader.outside(raw)
    flat = raw.flatten(1)
    return ((flat < spec.low) | (flat > spec.high)).any(1)


def refuse_overflow(spec: InputSpec, raw: Tensor, probs_BC: Tensor) -> None:
    """Refuse inputs so large that a network's probabilities for them are not finite.

    Raises:
        InvalidInput: Names the first such input.
    """
    fine_BC = torch.isfinite(probs_BC)
    if not bool(fine_BC.all()):
        row = int((~fine_BC.all(-1)).nonzero()[0])
        raise InvalidInput(
            f"Expected values that the network can process, but input {row} makes its logits overflow (largest "
            f"magnitude {float(raw[row].abs().max()):g}; training values lay in [{spec.low:g}, {spec.high:g}]); scale "
            "it as the training data were."
        )


def _read(spec: InputSpec, instances: Sequence[Any]) -> NDArray[np.float32]:
    if spec.reader is None:
        raise InvalidInput(f"Expected numbers of shape {list(spec.shape)}, but got a list of texts or of mappings.")
    return spec.reader.read(instances)


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


def decode(spec: InputSpec, raw: Tensor) -> Any:
    """A raw input ``[*shape]`` as a user would send it: a row by column, a text, or nested lists of numbers."""
    if spec.reader is not None:
        return spec.reader.decode(raw.tolist())
    values = np.array([shortest(value) for value in raw.flatten().tolist()]).reshape(spec.shape)
    nested: list[Any] = (values[0] if len(spec.shape) == 3 and spec.shape[0] == 1 else values).tolist()
    return nested


def example(spec: InputSpec) -> Any:
    """One input that the model takes, made up to try it with: a row by column, a text, or nested lists of numbers.

    Images show an upright stroke; rows of numbers climb from a quarter to three quarters of the range of training.

    Returns:
        None for more than 1,024 numbers, which nobody reads.
    """
    if spec.reader is not None:
        return spec.reader.example()
    if math.prod(spec.shape) > MAX_EXAMPLE:
        return None
    if len(spec.shape) == 3:
        across = np.linspace(-1, 1, spec.shape[2])
        down = np.linspace(-1, 1, spec.shape[1])[:, None]
        parts = np.exp(-((across / 0.25) ** 2)) * (np.abs(down) <= 0.8)
        parts = np.broadcast_to(parts, spec.shape)
        values = parts[0] if spec.shape[0] == 1 else parts
    else:
        values = np.linspace(0.25, 0.75, math.prod(spec.shape)).reshape(spec.shape)
    # Whole numbers where the range allows them: pixels are easier to read as 13 than as 12.7.
    digits = 0 if spec.high - spec.low >= 8 else 3
    nested: list[Any] = np.round(spec.low + values * (spec.high - spec.low), digits).tolist()
    return nested
