"""Chains: what a network computes, as a list of layers, where every layer reads the one before and nothing else.

A chain is run without the network: without module calls, with BatchNorm fused into the layer before it, and with what
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
from torch import Tensor

from dubio.uncertainty.dropout.audit import SamplingPlan
from dubio.uncertainty.dropout.function_mode import Call, DropoutMode
from dubio.uncertainty.dropout.sites import Site
from dubio.uncertainty.errors import StrategyNotApplicable

RELU: set[Callable[..., Any]] = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
# Functions of one tensor that act on each number alone, so that they commute with choosing units.
POINTWISE: set[Callable[..., Any]] = {
    *(F.gelu, F.silu, F.elu, F.selu, F.celu, F.mish, F.leaky_relu, F.hardtanh, F.relu6, F.softplus, F.logsigmoid),
    *(F.hardswish, torch.tanh, torch.sigmoid, Tensor.tanh, Tensor.sigmoid),
}
# These keep channels apart, keep a channel of zeros, and commute with multiplying a channel by a positive number.
POOLS: set[Callable[..., Any]] = {
    *(F.max_pool2d, torch.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
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
        call: From ``[rows, ...]`` to ``[rows, ...]``; it leaves its argument alone.
        separate: Whether each channel's result depends on that channel alone, and in the same way.
        homogeneous: Whether also a channel of zeros stays zero and f(s * x) = s * f(x) for s > 0.
        columns: Where it flattens, how many columns a channel becomes; otherwise None.
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
        prefix: The layers before the first site; None where that part is no chain, so that the network runs it.
        layers: The first site and what follows.
        row_numel: Numbers in the largest activation behind the first site, for one row.
    """

    prefix: tuple[Layer, ...] | None
    layers: tuple[Layer, ...]
    row_numel: int

    @property
    def num_weights(self) -> int:
        """Numbers in all weights."""
        layers = (*(self.prefix or ()), *self.layers)
        return sum(layer.weight.numel() for layer in layers if isinstance(layer, Linear | Conv))


def record(plan: SamplingPlan, x: Tensor) -> Chain:
    """Follow one pass of at least two rows ``[B, ...]``; for another batch size the chain is the same.

    Raises:
        StrategyNotApplicable: The network from its first site on is not a chain.
    """
    recorder = Recorder(plan, x)
    with recorder:
        logits = plan.network(x)
    if logits is not recorder.last or logits.ndim != 2:
        recorder.stop("the logits are not what the last layer gives")
    if recorder.obstacle is not None:
        raise StrategyNotApplicable(f"the network is no chain of layers: {recorder.obstacle}")
    return Chain(recorder.prefix, tuple(recorder.layers), recorder.row_numel)


class FirstSite(DropoutMode):
    """Runs a network up to its first sampled site."""

    def __init__(self, plan: SamplingPlan) -> None:
        super().__init__(plan.zero_rates)
        self._network, self._planned = plan.network, iter(plan.calls)

    def drop(self, call: Call) -> Tensor:
        if next(self._planned).site is not None:
            raise _Reached(call.x)
        return call.x

    def activation(self, x: Tensor) -> Tensor:
        """Give what the first site sees for ``[B, ...]``."""
        try:
            with self:
                self._network(x)
        except _Reached as reached:
            activation: Tensor = reached.args[0]
            return activation
        raise RuntimeError("Expected to meet a dropout site, as when the network was audited, but met none.")


class _Reached(Exception):
    """Carries what the first site sees."""


class Recorder(DropoutMode):
    """Follows the activation as long as it runs through one chain of known layers.

    Attributes:
        layers: Since the first site, if there was one already.
        prefix: Those before it.
        last: The activation.
        obstacle: Why what was followed is no chain, or None.
        row_numel: Numbers in the largest activation behind the first site, for one row.
    """

    def __init__(self, plan: SamplingPlan, x: Tensor) -> None:
        super().__init__(plan.zero_rates)
        self.layers: list[Layer] = []
        self.prefix: tuple[Layer, ...] | None = None
        self.last: Any = x
        self.obstacle: str | None = None
        self.row_numel = 0
        self._planned = iter(plan.calls)
        self._num_sites = 0

    def stop(self, obstacle: str) -> None:
        """Note the first thing that is not as in a chain."""
        self.obstacle = self.obstacle or obstacle

    def drop(self, call: Call) -> Tensor:
        planned = next(self._planned)
        if planned.site is not None:
            self._site(call, planned.site, merged=planned.merged_axis is not None)
        return call.x

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name == "__get__":  # of an attribute, such as Tensor.T
            name = func.__self__.__name__  # type: ignore[attr-defined]
        if isinstance(output, Tensor):
            if not args or args[0] is not self.last:
                self.stop(f"{name} reads something else than what the layer before it gives")
            elif (layer := self._layer(func, args, kwargs, output)) is None:
                self.stop(f"{name} is no layer of a chain")
            else:
                self._append(layer, output)
            self.last = output
        elif not isinstance(output, int | torch.Size | torch.dtype | torch.device | bool | None):
            self.stop(f"{name} gives several tensors, or values")
        return output

    def _site(self, call: Call, site: Site, merged: bool) -> None:
        if not self._num_sites:
            # A network that is no chain before its first site may be one behind it.
            self.prefix = None if self.obstacle or call.x is not self.last else tuple(self.layers)
            self.obstacle, self.layers, self.last = None, [], call.x
            self.row_numel = call.x[0].numel()
        known = site.kind in {"dropout", "dropout1d", "dropout2d", "feature_dropout"} and not merged
        row_first = site.axis == 0 and call.steps is None and len(site.shape) == call.x.ndim - 1
        if not known or not row_first or call.x.ndim not in {2, 4}:
            self.stop(f"the site {site} does not multiply rows of features or of channels")
        if call.x is not self.last:
            self.stop(f"the site {site} reads something else than what the layer before it gives")
        if self.obstacle is None:
            channels = math.prod(site.shape) == site.shape[0] == call.x.shape[1]
            self.layers.append(Mask(self._num_sites, channels))
        self._num_sites += 1

    def _append(self, layer: Layer, output: Tensor) -> None:
        self.row_numel = max(self.row_numel, output[:1].numel())
        previous = self.layers[-1] if self.layers else None
        if isinstance(layer, Function) and isinstance(previous, Linear | Conv) and not previous.relu:
            if layer.call is torch.relu:
                self.layers[-1] = replace(previous, relu=True)
                return
            if isinstance(layer.call, _BatchNorm):
                self.layers[-1] = layer.call.fused_into(previous)
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
        others = args[1:]
        rest = {name: value for name, value in kwargs.items() if name not in {"inplace", "input"}}

        def bound(x: Tensor) -> Any:
            return func(x, *others, **rest)

        if func in RELU:
            return Function(torch.relu, separate=True, homogeneous=True)
        if func is F.group_norm or (func is F.layer_norm and len(args[1]) < x.ndim):
            return Function(bound)  # treats each row by itself, though it mixes channels
        if any(isinstance(value, Tensor) for value in (*others, *rest.values())):
            return None
        if func in POINTWISE:
            return Function(bound, separate=True)
        if func in POOLS and x.ndim == 4 and output.ndim == 4:
            return Function(bound, separate=True, homogeneous=True)
        if func in MEANS and x.ndim == 4 and tuple(output.shape[:2]) == tuple(x.shape[:2]):
            return Function(bound, separate=True, homogeneous=True)
        if func in FLATTEN and output.shape == x.shape:
            return Function(lambda x: x, separate=True, homogeneous=True)
        if func in FLATTEN and output.ndim == 2:
            return Function(partial(torch.flatten, start_dim=1), columns=math.prod(x.shape[2:]))
        return None


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
        return Function(lambda x: F.conv2d(x, weight, bias, stride, padding, dilation, groups))
    detached = None if bias is None else bias.detach()
    return Conv(weight.detach(), detached, _pair(stride), _pair(padding), _pair(dilation), (x.shape[2], x.shape[3]))


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

    def fused_into(self, layer: Linear | Conv) -> Linear | Conv:
        """Give the layer with BatchNorm behind it, as one."""
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
    # In double precision, so that fusing costs no more than one rounding.
    factor = (running_var.double() + eps).rsqrt() * (1.0 if weight is None else weight.detach().double())
    shift = (0.0 if bias is None else bias.detach().double()) - running_mean.double() * factor
    return Function(_BatchNorm(factor.to(running_mean.dtype), shift.to(running_mean.dtype)))
