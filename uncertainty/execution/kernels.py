"""Kernels: layers prepared for many calls, with oneDNN where torch has it.

On a CPU that is not Intel's, torch's default matrix product (MKL) uses half of the vector width; oneDNN uses all of it,
adds bias and ReLU on the way, and takes weights in the order that it reads them. ``torch.compile`` calls the same
operators. They are no public interface of torch, so every use has a plain one to fall back on, and a committee compares
what it built with the plain loop before it answers anybody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dubio.uncertainty.execution.chain import Conv, Function, Layer, Linear
from dubio.uncertainty.execution.grouped import TYPICAL_ROWS, GroupedLinear
from dubio.uncertainty.execution.timing import Clocks

Kernel = Callable[[Tensor], Tensor]
# Rows at which two ways to compute members' layers are compared, as with fewer a chain is faster than either; and turns
# that count after one that warms up.
COMPARED_ROWS = (16, 64, 128)
TURNS = 3
# Rows at which they are compared, at most.
MOST_ROWS = 4096
# How much faster torch's own product must be.
MIN_SPEEDUP = 1.1
# Logarithm of a ratio of times from which more measuring changes nothing.
CLEAR = 2.0
_SHORTEST = 1e-9  # seconds of a turn; some clocks tell none


def has_onednn(weight: Tensor) -> bool:
    """Say whether oneDNN's operators run on this tensor."""
    return missing_onednn(weight) is None


def missing_onednn(weight: Tensor) -> str | None:
    """Say why oneDNN's operators do not run on this tensor; None where they do."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return f"oneDNN's operators are for float32 on a CPU, not for {str(weight.dtype)[6:]} on {weight.device.type}"
    if not torch.backends.mkldnn.enabled:
        return "oneDNN is switched off, by torch.backends.mkldnn"
    names = ("_linear_pointwise", "_convolution_pointwise", "_get_mkldnn_serialized_md")
    if torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names):
        return None
    return f"torch {torch.__version__} has no such operators here"


def prepare(layer: Layer, rows: Sequence[int] = (), end: float = math.inf) -> Kernel:
    """Prepare any layer but a site; see `linear` for numbers of rows and the end."""
    if isinstance(layer, Linear):
        return linear(layer, rows, end)
    if isinstance(layer, Conv):
        return conv(layer)
    if isinstance(layer, Function):
        return layer.call
    raise TypeError(f"Expected a layer with an operation of its own, but got {layer}.")


def linear(layer: Linear, rows: Sequence[int] = (), end: float = math.inf) -> Kernel:
    """From ``[rows, I]`` to ``[rows, O]``.

    By oneDNN, unless torch's own product, a call of which takes less from Python, is clearly faster; the weights of the
    other are not kept.

    Args:
        layer: To prepare.
        rows: At which the two are compared; without any it is oneDNN.
        end: Until when they may be, by `time.perf_counter`.
    """
    weight_OI, bias_O = layer.weight, layer.bias
    plain = _then_relu(lambda x: F.linear(x, weight_OI, bias_O), layer.relu)
    if not has_onednn(weight_OI):
        return plain
    call = torch.ops.mkldnn._linear_pointwise.default
    weight_packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), None)
    after = "relu" if layer.relu else "none"

    def packed(x: Tensor) -> Tensor:
        out: Tensor = call(x, weight_packed, bias_O, after, [], "")
        return out

    shapes = [(each, weight_OI.shape[1]) for each in dict.fromkeys(min(each, MOST_ROWS) for each in rows)]
    compared = bool(shapes) and time.perf_counter() < end
    return plain if compared and speedup(packed, plain, shapes, end) > MIN_SPEEDUP else packed


def conv(layer: Conv) -> Kernel:
    """From ``[rows, I, H, W]`` to ``[rows, O, H', W']``, channels last in memory."""
    weight = layer.weight.contiguous(memory_format=torch.channels_last)
    bias_O, stride, padding, dilation = layer.bias, list(layer.stride), list(layer.padding), list(layer.dilation)
    if has_onednn(weight):
        call = torch.ops.mkldnn._convolution_pointwise.default
        size = [TYPICAL_ROWS, weight.shape[1], *layer.size]
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, 1, size)
        # With AVX alone a convolution that fuses a ReLU is another one, whose weights have another order than these.
        fused = layer.relu and torch.backends.cpu.get_cpu_capability() != "DEFAULT"
        after = "relu" if fused else "none"
        return _then_relu(
            lambda x: call(_channels_last(x), packed, bias_O, padding, stride, dilation, 1, after, [], ""),
            layer.relu and not fused,
        )
    return _then_relu(lambda x: F.conv2d(_channels_last(x), weight, bias_O, stride, padding, dilation), layer.relu)


def members_linear(
    weight_KOI: Tensor, bias_KO: Tensor, relu: bool, end: float = math.inf, grouped: bool | None = None
) -> Kernel:
    """A linear layer for each member at once: from ``[rows, K, I]`` to ``[rows, K, O]``.

    Either as `dubio.uncertainty.execution.grouped` or as a plain product of batched matrices, whichever is found to be
    faster; the other's copy of the weights is not kept.

    Args:
        weight_KOI: Of the members.
        bias_KO: Of the members.
        relu: Whether a ReLU follows.
        end: Until when that may be found out, by `time.perf_counter`; without time it is the plain one.
        grouped: What was found out for members like these.
    """
    bias_K1O, weight_KIO = bias_KO.unsqueeze(1), weight_KOI.transpose(1, 2)
    plain = _then_relu(lambda x: torch.baddbmm(bias_K1O, x.transpose(0, 1), weight_KIO).transpose(0, 1), relu)
    if grouped is False or not has_onednn(weight_KOI) or time.perf_counter() > end:
        return plain
    new = GroupedLinear(weight_KOI, bias_KO, relu, end)
    shapes = [(rows, len(weight_KOI), weight_KOI.shape[2]) for rows in COMPARED_ROWS]
    return new if grouped or speedup(plain, new, shapes, end) > 1 else plain


def speedup(old: Kernel, new: Kernel, shapes: Sequence[tuple[int, ...]], end: float) -> float:
    """Say how many times as fast the new kernel is as the old one: the geometric mean over inputs of these shapes.

    They take turns, and the fastest turn counts. Where the time is up before a shape was measured once, the new one is
    not faster there; where it is clear, no more is measured.
    """
    logs: list[float] = []
    cost = Clocks.of(torch.device("cpu")).cost
    for shape in shapes:
        x = torch.ones(shape)
        times = {old: math.inf, new: math.inf}
        for turn in range(1 + TURNS):
            for kernel in (old, new):
                start = cost()
                kernel(x)
                if turn:
                    times[kernel] = min(times[kernel], cost() - start)
            if turn and time.perf_counter() > end:
                break
        logs.append(math.log(max(times[old], _SHORTEST) / max(times[new], _SHORTEST)))
        if time.perf_counter() > end or abs(logs[-1]) > CLEAR:
            break
    return math.exp(sum(logs) / len(logs))


def _then_relu(kernel: Kernel, relu: bool) -> Kernel:
    return (lambda x: kernel(x).relu_()) if relu else kernel


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


class OneDNNLinear(TorchFunctionMode):
    """Runs linear layers of any network through oneDNN, in this thread, while it is active."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and not kwargs and len(args) in {2, 3} and args[1].ndim == 2:
            x, weight_OI, bias_O = (*args, None)[:3]
            if has_onednn(weight_OI) and x.dtype == weight_OI.dtype and weight_OI.is_contiguous():
                return torch.ops.mkldnn._linear_pointwise.default(x, weight_OI, bias_O, "none", [], "")
        return func(*args, **(kwargs or {}))
