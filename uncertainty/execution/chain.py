"""Chains: what a network computes, as a list of layers, where every layer reads the one before and nothing else.

A chain is run without the network: without module calls, with BatchNorm folded into the layer before it, and with what
the members share computed once. A skip connection, or anything unknown behind the first site, is no chain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.uncertainty.dropout.function_mode import Call, DropoutMode
from dubio.uncertainty.dropout.sites import PlannedCall

RELU: set[Callable[..., Any]] = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
# Functions of one tensor that act on each number alone, so that they commute with choosing units.
POINTWISE: set[Callable[..., Any]] = {
    F.gelu,
    F.silu,
    F.elu,
    F.selu,
    F.celu,
    F.mish,
    F.leaky_relu,
    F.hardtanh,
    F.relu6,
    F.softplus,
    F.logsigmoid,
    F.hardswish,
    torch.tanh,
    torch.sigmoid,
    Tensor.tanh,
    Tensor.sigmoid,
}
# These keep channels apart, keep a channel of zeros, and commute with multiplying a channel by a positive number.
POOLS: set[Callable[..., Any]] = {
    F.max_pool2d,
    torch.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    F.adaptive_max_pool2d,
    torch._C._nn.adaptive_avg_pool2d,
}
MEANS: set[Callable[..., Any]] = {torch.mean, Tensor.mean}
FLATTEN: set[Callable[..., Any]] = {torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape}


@dataclass(frozen=True)
class Linear:
    """A linear layer, with a ReLU behind it or without."""

    weight: Tensor  # [O, I]
    bias: Tensor | None
    relu: bool = False


@dataclass(frozen=True)
class Conv:
    """A two-dimensional convolution, with a ReLU behind it or without."""

    weight: Tensor  # [O, I, H, W]
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    size: tuple[int, int]  # height and width of what it was recorded with
    relu: bool = False


@dataclass(frozen=True)
class Function:
    """Anything without weights.

    Attributes:
        call: from ``[rows, ...]`` to ``[rows, ...]``; it leaves its argument alone.
        separate: whether each channel's result depends on that channel alone, and in the same way.
        homogeneous: whether also a channel of zeros stays zero and f(s * x) = s * f(x) for s > 0.
        columns: where it flattens, how many columns a channel becomes; otherwise None.
    """

    call: Callable[[Tensor], Tensor]
    separate: bool = False
    homogeneous: bool = False
    columns: int | None = None


@dataclass(frozen=True)
class Mask:
    """The dropout site of that number among those sampled; channels say whether its mask drops whole channels."""

    site: int
    channels: bool


Layer = Linear | Conv | Function | Mask


@dataclass(frozen=True)
class Chain:
    """A network as a list of layers.

    Attributes:
        before: the layers before the first site; None where that part is no chain, so that the network runs it.
        after: the first site and what follows.
        row_numel: numbers in the largest activation behind the first site, for one row.
    """

    before: tuple[Layer, ...] | None
    after: tuple[Layer, ...]
    row_numel: int


def record(network: nn.Module, x: Tensor, slots: Sequence[PlannedCall], zeros: bool) -> Chain | None:
    """Follow one pass through a network.

    Args:
        network: in eval mode.
        x: at least two rows, ``[B, ...]``; another batch size is another pass of the same chain.
        slots: as audited.
        zeros: whether calls with a rate of 0 are among the slots.

    Returns:
        None where the network from its first site on is not a chain.
    """
    recorder = _Recorder(x, slots, zeros)
    with recorder:
        logits = network(x)
    complete = recorder.met == len(slots) and logits is recorder.last and logits.ndim == 2
    if recorder.broken or not complete or not recorder.seen_site:
        return None
    return Chain(recorder.before, tuple(recorder.layers), recorder.row_numel)


class FirstSite(DropoutMode):
    """Runs a network up to its first sampled site."""

    def __init__(self, slots: Sequence[PlannedCall], zeros: bool) -> None:
        super().__init__(zeros)
        self._slots = iter(slots)

    def drop(self, call: Call) -> Tensor:
        if next(self._slots).site is not None:
            raise _Reached(call.x)
        return call.x

    def activation(self, network: nn.Module, x: Tensor) -> Tensor:
        """What the first site sees for ``[B, ...]``."""
        try:
            with self:
                network(x)
        except _Reached as reached:
            return reached.activation
        raise RuntimeError("Expected to meet a dropout site, as when the network was audited, but met none.")


class _Reached(Exception):
    def __init__(self, activation: Tensor) -> None:
        super().__init__()
        self.activation = activation


class _Recorder(DropoutMode):
    """Follows the activation as long as it runs through one chain of known layers."""

    def __init__(self, x: Tensor, slots: Sequence[PlannedCall], zeros: bool) -> None:
        super().__init__(zeros)
        self.layers: list[Layer] = []
        self.before: tuple[Layer, ...] | None = None
        self.last: Any = x
        self.broken = False
        self.seen_site = False
        self.met = 0
        self.row_numel = 0
        self._slots = slots
        self._sites = 0

    def drop(self, call: Call) -> Tensor:
        slot = self._slots[self.met] if self.met < len(self._slots) else None
        self.met += 1
        if slot is None:
            self.broken = True
        elif slot.site is not None:
            self._site(call, slot)
        return call.x

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = func(*args, **kwargs)
        if isinstance(output, Tensor):
            layer = self._layer(func, args, kwargs, output) if args and args[0] is self.last else None
            if layer is None:
                self.broken = True
            else:
                self._append(layer, output)
            self.last = output
        elif not isinstance(output, int | torch.Size | torch.dtype | torch.device | bool | None):
            self.broken = True  # several tensors, or values
        return output

    def _site(self, call: Call, slot: PlannedCall) -> None:
        if slot.site is None:
            raise ValueError("Expected a slot with a site.")
        if not self.seen_site:
            # A network that is no chain before its first site may be one behind it.
            self.before = None if self.broken or call.x is not self.last else tuple(self.layers)
            self.seen_site, self.broken, self.layers, self.last = True, False, [], call.x
            self.row_numel = call.x[0].numel()
        shape = slot.site.shape
        known = slot.kind in {"dropout", "dropout1d", "dropout2d", "feature_dropout"} and slot.folded is None
        plain = known and slot.site.axis == 0 and call.steps is None and len(shape) == call.x.ndim - 1
        self.broken |= not plain or call.x is not self.last or call.x.ndim not in {2, 4}
        self.layers.append(Mask(self._sites, channels=math.prod(shape) == shape[0] == call.x.shape[1]))
        self._sites += 1

    def _append(self, layer: Layer, output: Tensor) -> None:
        self.row_numel = max(self.row_numel, output[:1].numel())
        before = self.layers[-1] if self.layers else None
        if isinstance(layer, Function) and isinstance(before, Linear | Conv) and not before.relu:
            if layer.call is torch.relu:
                self.layers[-1] = replace(before, relu=True)
                return
            if isinstance(layer.call, _BatchNorm):
                self.layers[-1] = layer.call.folded(before)
                return
        self.layers.append(layer)

    def _layer(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Layer | None:
        x = args[0]
        if x.ndim == 0 or output.ndim == 0 or len(output) != len(x):
            return None
        if func is F.linear and x.ndim == 2:
            return _linear(*args[1:], **kwargs)
        if func is F.conv2d and x.ndim == 4:
            return _conv(x, *args[1:], **kwargs)
        if func is F.batch_norm:
            return _batch_norm(*args[1:], **kwargs)
        rest = {name: value for name, value in kwargs.items() if name not in {"inplace", "input"}}
        bound = partial(_call, func, args[1:], rest) if args[1:] or rest else func
        if func in RELU:
            return Function(torch.relu, separate=True, homogeneous=True)
        if func is F.group_norm or (func is F.layer_norm and _num_axes(*args[1:], **kwargs) < x.ndim):
            return Function(bound)  # treats each row by itself, though it mixes channels
        if any(isinstance(value, Tensor) for value in (*args[1:], *rest.values())):
            return None
        if func in POINTWISE:
            return Function(bound, separate=True)
        if func in POOLS and x.ndim == 4 and output.ndim == 4:
            return Function(bound, separate=True, homogeneous=True)
        if func in MEANS and x.ndim == 4 and tuple(output.shape[:2]) == tuple(x.shape[:2]):
            return Function(bound, separate=True, homogeneous=True)
        if func in FLATTEN and output.shape == x.shape:
            return Function(_same, separate=True, homogeneous=True)
        if func in FLATTEN and output.ndim == 2:
            return Function(partial(torch.flatten, start_dim=1), columns=math.prod(x.shape[2:]))
        return None


def _call(func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor) -> Tensor:
    return func(x, *args, **kwargs)


def _same(x: Tensor) -> Tensor:
    return x


def _num_axes(normalized_shape: Sequence[int], *args: Any, **kwargs: Any) -> int:
    return len(normalized_shape)


def _linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    return Linear(weight.detach(), None if bias is None else bias.detach())


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Layer:
    if groups != 1 or isinstance(padding, str):
        return Function(partial(_call, F.conv2d, (weight, bias, stride, padding, dilation, groups), {}))
    plain = None if bias is None else bias.detach()
    return Conv(weight.detach(), plain, _pair(stride), _pair(padding), _pair(dilation), (x.shape[2], x.shape[3]))


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values[0], values[-1])


@dataclass(frozen=True)
class _BatchNorm:
    """BatchNorm on running statistics, which is a factor and a shift for each channel."""

    factor: Tensor
    shift: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        axes = (-1, *[1] * (x.ndim - 2))
        return x * self.factor.view(axes) + self.shift.view(axes)

    def folded(self, layer: Linear | Conv) -> Linear | Conv:
        """The layer with BatchNorm behind it, as one."""
        weight = layer.weight * self.factor.view(-1, *[1] * (layer.weight.ndim - 1))
        bias = self.shift if layer.bias is None else layer.bias * self.factor + self.shift
        return replace(layer, weight=weight, bias=bias)


def _batch_norm(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Function | None:
    if training or running_mean is None or running_var is None:
        return None
    # In double precision, so that folding costs no more than one rounding.
    factor = (running_var.double() + eps).rsqrt() * (1.0 if weight is None else weight.detach().double())
    shift = (0.0 if bias is None else bias.detach().double()) - running_mean.double() * factor
    return Function(_BatchNorm(factor.to(running_mean.dtype), shift.to(running_mean.dtype)))
