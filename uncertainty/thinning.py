"""Thinned committees: where a site sits between two linear layers, a member needs only the units it keeps.

Multiplying by a mask computes a unit and throws it away. Instead the kept rows and columns of each weight matrix are
gathered once per member, and all members run as one batched matrix product over their own small matrices: at p = .5 a
hidden-to-hidden layer needs a quarter of the arithmetic. Members keep different numbers of units (Bernoulli), so the
matrices are padded with zeros to the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from uncertainty.calls import DROPOUTS, Call
from uncertainty.slots import Site

# Functions of one tensor that act on each number alone, so that they commute with choosing units.
POINTWISE: set[Callable[..., Any]] = {
    F.relu,
    F.gelu,
    F.silu,
    F.elu,
    F.selu,
    F.leaky_relu,
    F.hardtanh,
    F.softplus,
    torch.relu,
    torch.tanh,
    torch.sigmoid,
}


@dataclass(frozen=True)
class Linear:
    """A linear layer of the chain and the pointwise functions behind it."""

    weight_OI: Tensor
    bias_O: Tensor | None
    pointwise: tuple[Callable[[Tensor], Tensor], ...]
    site: int | None  # the site that follows, if any


class _FirstSite(Exception):
    """Ends a pass at the first site, with the activation there."""

    def __init__(self, activation: Tensor) -> None:
        super().__init__()
        self.activation = activation


class _Stop(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kind = DROPOUTS.get(func)
        if kind is not None:
            call = Call.of(func, args, kwargs or {})
            if call.p > 0:
                raise _FirstSite(call.x)
            return call.x
        return func(*args, **(kwargs or {}))


class _ChainRecorder(TorchFunctionMode):
    """Follows the activation behind the first site, as long as it runs through one chain of known layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[Linear] = []
        self.sites = 0
        self.last: Tensor | None = None
        self.broken = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = DROPOUTS.get(func)
        if kind is not None:
            call = Call.of(func, args, kwargs)
            if call.p > 0:
                self._site(kind, call.x)
            return call.x
        output = func(*args, **kwargs)
        if self.sites:
            self._follow(func, args, kwargs, output)
        return output

    def _site(self, kind: str, x: Tensor) -> None:
        if self.sites == 0:
            self.last = x
        elif x is not self.last or not self.layers or self.layers[-1].site is not None:
            self.broken = True
        else:
            self.layers[-1] = replace(self.layers[-1], site=self.sites)
        self.broken |= kind != "dropout" or x.ndim != 2
        self.sites += 1

    def _follow(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        follows = bool(args) and args[0] is self.last
        if follows and func is F.linear and not kwargs and len(args) in {2, 3}:
            self.layers.append(Linear(args[1], args[2] if len(args) == 3 else None, (), None))
        elif follows and func in POINTWISE and len(args) == 1 and self.layers and self.layers[-1].site is None:
            before = self.layers[-1]
            rest = {name: value for name, value in kwargs.items() if name != "inplace"}

            # A matrix product's result is fresh memory that ReLU may overwrite.
            pointwise = torch.relu_ if func in {F.relu, torch.relu} else partial(func, **rest)
            self.layers[-1] = replace(before, pointwise=(*before.pointwise, pointwise))
        else:
            self.broken = True
        self.last = output


@dataclass(frozen=True)
class Thinned:
    """Members of a chain, as small matrices.

    Attributes:
        network: runs up to the first site.
        kept_KM: units that each member keeps at the first site, padded.
        layers: for each linear layer the members' weights ``[K, O, I]``, biases ``[K, O, 1]`` and pointwise functions.
    """

    network: nn.Module
    kept_KM: Tensor
    layers: tuple[tuple[Tensor, Tensor, tuple[Callable[[Tensor], Tensor], ...]], ...]

    @property
    def num_weights(self) -> int:
        """Numbers in all members' matrices."""
        return sum(weight_KOI.numel() for weight_KOI, _, _ in self.layers)

    def __call__(self, x: Tensor, which: slice = slice(None)) -> Tensor:
        """Logits ``[K, B, C]`` of some members, all by default, for a batch of any size ``[B, ...]``."""
        try:
            with _Stop():
                self.network(x)
        except _FirstSite as reached:
            activation_BI = reached.activation
        # Units first: gathering a unit then copies a row of B numbers, and the products need no transposition.
        rows_IB = activation_BI.t().contiguous()
        kept_KM = self.kept_KM[which]
        hidden_KIB = rows_IB.index_select(0, kept_KM.flatten()).view(*kept_KM.shape, -1)
        for weight_KOI, bias_KO1, pointwise in self.layers:
            hidden_KIB = torch.baddbmm(bias_KO1[which], weight_KOI[which], hidden_KIB)
            for function in pointwise:
                hidden_KIB = function(hidden_KIB)
        return hidden_KIB.transpose(1, 2)


def thin(
    network: nn.Module, x: Tensor, sites: Sequence[Site], keeps: Sequence[Tensor], max_weights: int
) -> Thinned | None:
    """Thin a network whose sites all sit between linear layers.

    Args:
        network: in eval mode.
        x: at least one row, ``[B, ...]``.
        sites: as audited.
        keeps: which units each member keeps, one ``[K, *site.shape]`` a site.
        max_weights: how many numbers the members' matrices may hold together.

    Returns:
        None where that would be more, or where the network from its first site on is not a chain of linear layers,
        pointwise functions and element-wise dropout.
    """
    recorder = _ChainRecorder()
    with recorder:
        logits = network(x)
    if recorder.broken or recorder.sites != len(sites) or logits is not recorder.last or not recorder.layers:
        return None
    if recorder.layers[-1].site is not None:
        return None
    if len(keeps[0]) * sum(layer.weight_OI.numel() for layer in recorder.layers) > max_weights:
        return None  # before thinning, which is an upper bound and known without gathering anything
    kept = [_kept(keep.to(x.device)) for keep in keeps]
    layers, before = [], 0
    for index, layer in enumerate(recorder.layers):
        incoming = kept[before] if index == 0 or recorder.layers[index - 1].site is not None else None
        scale = 1 / (1 - sites[before].p) if incoming is not None and sites[before].p < 1 else 1.0
        outgoing = None if layer.site is None else kept[layer.site]
        layers.append((*_gather(layer, incoming, outgoing, scale, len(keeps[0])), layer.pointwise))
        before = before if layer.site is None else layer.site
    return Thinned(network, kept[0][0], tuple(layers))


def _kept(keep_KN: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the kept units ``[K, M]``, padded with dropped ones to the largest count, and which are real."""
    most = max(1, int(keep_KN.sum(1).max()))
    # A stable sort brings the kept units to the front, in their order.
    order_KN = (~keep_KN).to(torch.uint8).argsort(dim=1, stable=True)
    kept_KM = order_KN[:, :most].contiguous()
    return kept_KM, keep_KN.gather(1, kept_KM)


def _gather(
    layer: Linear,
    incoming: tuple[Tensor, Tensor] | None,
    outgoing: tuple[Tensor, Tensor] | None,
    scale: float,
    num_samples: int,
) -> tuple[Tensor, Tensor]:
    """Each member's weights ``[K, O, I]`` and biases ``[K, O, 1]``: kept rows and columns, zero where padded."""
    bias_O = layer.weight_OI.new_zeros(len(layer.weight_OI)) if layer.bias_O is None else layer.bias_O
    weight_KOI = layer.weight_OI.expand(num_samples, -1, -1)
    bias_KO = bias_O.expand(num_samples, -1)
    if outgoing is not None:
        kept_KO, real_KO = outgoing
        weight_KOI = layer.weight_OI[kept_KO] * real_KO.unsqueeze(-1)
        bias_KO = bias_O[kept_KO] * real_KO
    if incoming is not None:
        kept_KI, real_KI = incoming
        index_KOI = kept_KI.unsqueeze(1).expand(-1, weight_KOI.shape[1], -1)
        weight_KOI = weight_KOI.gather(2, index_KOI) * (real_KI * scale).unsqueeze(1)
    return weight_KOI.contiguous(), bias_KO.unsqueeze(-1).contiguous()
