"""Dropout sites: the places in a network where dropout acts, in call order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from uncertainty.errors import NetworkInTrainingMode, NoDropoutFound, UnsupportedNetwork, UnsupportedSite

# A spatial kind drops whole channels: its mask has one entry a channel and broadcasts over that many axes.
SPATIAL_AXES = {"dropout": 0, "dropout1d": 1, "dropout2d": 2, "dropout3d": 3}
DROPOUTS: dict[Callable[..., Any], str] = {
    F.dropout: "dropout",
    F.dropout1d: "dropout1d",
    F.dropout2d: "dropout2d",
    F.dropout3d: "dropout3d",
}
UNSUPPORTED: dict[Callable[..., Any], str] = {
    F.alpha_dropout: "alpha_dropout",
    F.feature_alpha_dropout: "feature_alpha_dropout",
    torch.dropout: "torch.dropout",
    torch.dropout_: "torch.dropout_",
    torch.feature_dropout: "torch.feature_dropout",
    torch.feature_dropout_: "torch.feature_dropout_",
    torch.alpha_dropout: "torch.alpha_dropout",
    torch.alpha_dropout_: "torch.alpha_dropout_",
    torch.feature_alpha_dropout: "torch.feature_alpha_dropout",
    torch.feature_alpha_dropout_: "torch.feature_alpha_dropout_",
}
# Where the attention functions take their `dropout_p`, by position.
ATTENTION: dict[Callable[..., Any], int] = {
    F.scaled_dot_product_attention: 4,
    F.multi_head_attention_forward: 10,
}


@dataclass(frozen=True)
class Site:
    """One place where dropout acts.

    Attributes:
        kind: the function of ``torch.nn.functional`` that is called there.
        p: probability that a unit (or, for the spatial kinds, a channel) is dropped.
        shape: shape of one member's mask; it broadcasts against the activation without its batch axis.
    """

    kind: str
    p: float
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """The arguments of one dropout call, whichever way they were passed."""

    x: Tensor
    p: float
    training: bool
    inplace: bool

    @staticmethod
    def of(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Bind the arguments as the functions of ``torch.nn.functional`` declare them."""
        names = ("input", "p", "training", "inplace")
        bound = {
            "p": 0.5,
            "training": True,
            "inplace": False,
            **dict(zip(names, args, strict=False)),
            **kwargs,
        }
        return Call(bound["input"], float(bound["p"]), bool(bound["training"]), bool(bound["inplace"]))


class SiteRecorder(TorchFunctionMode):
    """Records every dropout call of one eval-mode pass; dropout itself stays off."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, float, tuple[int, ...]]] = []
        self.largest_output = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        kind = DROPOUTS.get(func) or UNSUPPORTED.get(func)
        if kind is None:
            if func in ATTENTION:
                _check_attention(func, args, kwargs)
            output = func(*args, **kwargs)
            for tensor in output if isinstance(output, tuple | list) else (output,):
                if isinstance(tensor, Tensor):
                    self.largest_output = max(self.largest_output, tensor.numel() * tensor.element_size())
            return output
        call = Call.of(kind, args, kwargs)
        if call.p > 0:
            self._check(kind, call)
            self.calls.append((kind, call.p, tuple(call.x.shape)))
        return call.x

    def _check(self, kind: str, call: Call) -> None:
        where = f"dropout site {len(self.calls)} ({kind}, p={call.p:g})"
        if kind not in SPATIAL_AXES:
            raise UnsupportedSite(f"{where} cannot be sampled; use nn.Dropout or nn.Dropout1d/2d/3d there.")
        if call.training:
            raise UnsupportedSite(
                f"{where} is called with training=True although the network is in eval mode, so the network's "
                "deterministic prediction would be random; pass training=self.training."
            )
        if call.inplace:
            raise UnsupportedSite(
                f"{where} works in place, which would write into what all members share; use inplace=False."
            )


@dataclass(frozen=True)
class Audit:
    """What one look at a network found.

    Attributes:
        sites: the dropout sites in call order.
        num_classes: C, the number of logits an input gets.
        row_bytes: size of the largest intermediate result for one row, in bytes.
    """

    sites: tuple[Site, ...]
    num_classes: int
    row_bytes: int


def audit(network: nn.Module, example_input: Tensor) -> Audit:
    """Find the dropout sites of a network without drawing a random number or writing to it.

    Args:
        network: in eval mode; maps ``[B, ...]`` to logits ``[B, C]``.
        example_input: ``[B, ...]`` with at least one row; only its first row is used.

    Raises:
        NetworkInTrainingMode: the network or a module inside it is in train mode.
        UnsupportedNetwork: the output is not ``[B, C]``, a row's logits depend on the other rows, or the network
            writes to its input, a parameter or a buffer.
        UnsupportedSite: a site cannot be sampled faithfully.
        NoDropoutFound: there is no site with p > 0.
    """
    _check_modules(network)
    if not example_input.ndim or not len(example_input):
        raise UnsupportedNetwork(
            f"Expected `example_input` to have at least one row, but got shape {tuple(example_input.shape)}."
        )
    before = _versions(network)
    # Two batch sizes tell the batch axis from a feature axis that has the same length by chance, and other company
    # tells whether rows keep to themselves: a quiet row and a loud one, or two tokens that any vocabulary has.
    row = example_input[:1]
    loud = torch.full_like(row, 100 if row.is_floating_point() else 1)
    small, recorder = _probe(network, torch.cat([row, row]))
    mixed, other = _probe(network, torch.cat([row, torch.zeros_like(row), loud]))
    if not _same(before, _versions(network)):
        raise UnsupportedNetwork(
            f"Expected a network that only reads in eval mode, but {type(network).__name__} writes to a parameter or "
            "buffer, so concurrent predictions would race; write under `if self.training`."
        )
    if len(recorder.calls) != len(other.calls):
        raise UnsupportedNetwork(
            f"Expected the same dropout sites for every batch, but found {len(recorder.calls)} for one and "
            f"{len(other.calls)} for another; the sites must not depend on the input or on the batch size."
        )
    if not recorder.calls:
        raise NoDropoutFound(
            f"{type(network).__name__} has no dropout site with p > 0, so its samples would not vary and their "
            "standard deviation would be 0; train it with dropout."
        )
    sites = tuple(
        _site(index, kind, p, two, three)
        for index, ((kind, p, two), (_, _, three)) in enumerate(zip(recorder.calls, other.calls, strict=True))
    )
    _check_company(network, small[0], mixed[0])
    return Audit(sites, num_classes=small.shape[1], row_bytes=max(1, recorder.largest_output // 2))


def _probe(network: nn.Module, x: Tensor) -> tuple[Tensor, SiteRecorder]:
    recorder = SiteRecorder()
    with torch.inference_mode(mode=False):
        x = x.clone()  # a tensor made in inference mode would not count the writes into it
    version = x._version
    with torch.inference_mode(), recorder:
        logits = network(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnsupportedNetwork(
            f"Expected logits of shape [B, C] for B = {len(x)} rows of shape {tuple(x.shape[1:])}, "
            f"but {type(network).__name__} returned {found}."
        )
    if x._version > version:
        raise UnsupportedNetwork(
            f"Expected a network that leaves its input alone, but {type(network).__name__} writes into it, so the "
            "members would not see the same input; copy the input first or use inplace=False."
        )
    return logits, recorder


def _versions(network: nn.Module) -> list[tuple[Tensor, int]]:
    """Every parameter and buffer with its version: a write changes one or the other."""
    tensors = [*network.parameters(), *network.buffers()]
    return [(tensor, 0 if tensor.is_inference() else tensor._version) for tensor in tensors]


def _same(before: list[tuple[Tensor, int]], after: list[tuple[Tensor, int]]) -> bool:
    return len(before) == len(after) and all(
        old is new and old_version == new_version
        for (old, old_version), (new, new_version) in zip(before, after, strict=True)
    )


def _check_company(network: nn.Module, alone_C: Tensor, mixed_C: Tensor) -> None:
    """Refuse a network whose answer for a row depends on the other rows of its batch, far beyond rounding."""
    tolerance = max(1e-3, 8 * torch.finfo(alone_C.dtype).eps)
    scale = float(alone_C.abs().max().clamp(min=1))
    if not torch.allclose(alone_C, mixed_C, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
        raise UnsupportedNetwork(
            f"Expected {type(network).__name__} to give a row the same logits whatever shares its batch, but they "
            "differ; BatchNorm needs track_running_stats=True, and nothing may be averaged over axis 0."
        )


def _site(index: int, kind: str, p: float, two: tuple[int, ...], three: tuple[int, ...]) -> Site:
    if two[:1] != (2,) or three[:1] != (3,) or two[1:] != three[1:]:
        raise UnsupportedSite(
            f"dropout site {index} ({kind}, p={p:g}) sees an activation of shape {two} for a batch of 2 and {three} "
            "for 3; the batch must be axis 0 and the other axes must not depend on it."
        )
    axes = SPATIAL_AXES[kind]
    if axes and len(two) != axes + 2:
        raise UnsupportedSite(
            f"dropout site {index} ({kind}, p={p:g}) sees an activation of shape {two}; {kind} needs [B, C] and "
            f"{axes} more axes."
        )
    shape = two[1:] if axes == 0 else (two[1], *([1] * axes))
    return Site(kind, p, shape)


def _check_attention(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    position = ATTENTION[func]
    p = float(args[position] if len(args) > position else kwargs.get("dropout_p", 0.0))
    if p > 0:
        raise UnsupportedSite(
            f"{func.__name__} is called with dropout_p={p:g}, which drops out inside torch's own kernel, where its "
            "masks cannot be set; pass dropout_p=0 and put nn.Dropout beside it."
        )


def _check_modules(network: nn.Module) -> None:
    for name, module in network.named_modules():
        where = f"module {name or type(network).__name__!r} ({type(module).__name__})"
        if module.training:
            raise NetworkInTrainingMode(f"{where} is in train mode; call network.eval() first.")
        hidden = _hidden_dropout(module)
        if hidden > 0:
            raise UnsupportedSite(
                f"{where} drops out inside torch's own kernel (dropout={hidden:g}), where its masks cannot be set; "
                "build it with dropout=0 and put nn.Dropout beside it."
            )


def _hidden_dropout(module: nn.Module) -> float:
    """Rate of a dropout that no call of ``torch.nn.functional.dropout`` shows in eval mode."""
    if isinstance(module, nn.RNNBase):
        return float(module.dropout) if module.num_layers > 1 else 0.0
    if isinstance(module, nn.MultiheadAttention):
        return float(module.dropout)
    return 0.0
