"""Kernels: layers prepared for many calls, with oneDNN where torch has it.

On a CPU that is not Intel's, torch's default matrix product (MKL) uses half of the vector width; oneDNN uses all of it,
adds bias and ReLU on the way, and takes weights in the order that it reads them. ``torch.compile`` calls the same
operators. They are no public interface of torch, so every use has a plain one to fall back on, and a committee compares
what it built with the plain loop before it answers anybody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dubio.uncertainty.execution.chain import Conv, Function, Layer, Linear

Kernel = Callable[[Tensor], Tensor]
# Shapes that weights are laid out for; other batch sizes run on the same layout.
TYPICAL_ROWS = 32


def has_onednn(weight: Tensor) -> bool:
    """Say whether oneDNN's operators run on this tensor."""
    return missing_onednn(weight) is None


def missing_onednn(weight: Tensor) -> str | None:
    """Say why oneDNN's operators do not run on this tensor; None where they do."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return f"oneDNN's operators are for float32 on a CPU, not for {str(weight.dtype)[6:]} on {weight.device.type}"
    names = ("_linear_pointwise", "_convolution_pointwise")
    if torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names):
        return None
    return f"torch {torch.__version__} has no such operators here"


def prepare(layer: Layer) -> Kernel:
    """Prepare any layer but a site."""
    if isinstance(layer, Linear):
        return linear(layer)
    if isinstance(layer, Conv):
        return conv(layer)
    if isinstance(layer, Function):
        return layer.call
    raise TypeError(f"Expected a layer with an operation of its own, but got {layer}.")


def linear(layer: Linear) -> Kernel:
    """From ``[rows, I]`` to ``[rows, O]``."""
    weight_OI, bias_O = layer.weight, layer.bias
    if has_onednn(weight_OI):
        call = torch.ops.mkldnn._linear_pointwise.default
        packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), None)
        after = "relu" if layer.relu else "none"
        return lambda x: call(x, packed, bias_O, after, [], "")
    return _then_relu(lambda x: F.linear(x, weight_OI, bias_O), layer.relu)


def conv(layer: Conv) -> Kernel:
    """From ``[rows, I, H, W]`` to ``[rows, O, H', W']``, channels last in memory."""
    weight = layer.weight.contiguous(memory_format=torch.channels_last)
    bias_O, stride, padding, dilation = layer.bias, list(layer.stride), list(layer.padding), list(layer.dilation)
    if has_onednn(weight):
        call = torch.ops.mkldnn._convolution_pointwise.default
        size = [TYPICAL_ROWS, weight.shape[1], *layer.size]
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, 1, size)
        after = "relu" if layer.relu else "none"
        return lambda x: call(_channels_last(x), packed, bias_O, padding, stride, dilation, 1, after, [], "")
    return _then_relu(lambda x: F.conv2d(_channels_last(x), weight, bias_O, stride, padding, dilation), layer.relu)


def members_linear(weight_KOI: Tensor, bias_KO: Tensor, relu: bool) -> Kernel:
    """A linear layer for each member at once: from ``[rows, K, I]`` to ``[rows, K, O]``."""
    num_members, width, incoming = weight_KOI.shape
    if has_onednn(weight_KOI):
        # One convolution of 1x1 over `rows` pixels, with a group for each member.
        call = torch.ops.mkldnn._convolution_pointwise.default
        stacked, bias = weight_KOI.reshape(-1, incoming, 1, 1), bias_KO.flatten()
        size = [1, num_members * incoming, 1, TYPICAL_ROWS]
        packed = torch.ops.mkldnn._reorder_convolution_weight(stacked, [0, 0], [1, 1], [1, 1], num_members, size)
        after = "relu" if relu else "none"

        def grouped(x_BKI: Tensor) -> Tensor:
            pixels = x_BKI.reshape(1, len(x_BKI), 1, num_members * incoming).permute(0, 3, 2, 1)
            out = call(pixels, packed, bias, [0, 0], [1, 1], [1, 1], num_members, after, [], "")
            out_BKO: Tensor = out.permute(0, 3, 2, 1).reshape(len(x_BKI), num_members, width)
            return out_BKO

        return grouped
    bias_K1O, weight_KIO = bias_KO.unsqueeze(1), weight_KOI.transpose(1, 2)
    return _then_relu(lambda x: torch.baddbmm(bias_K1O, x.transpose(0, 1), weight_KIO).transpose(0, 1), relu)


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
