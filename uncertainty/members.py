"""Members: thinned networks, run without switching any mode.

A ``TorchFunctionMode`` is thread-local. While it is active, a dropout call multiplies by the member's mask instead of
doing nothing, so eval-mode predictions in other threads, and the network itself, never notice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from uncertainty.errors import UnsupportedNetwork
from uncertainty.sites import DROPOUTS, Call


class Masking(TorchFunctionMode):
    """Multiplies the activation at the i-th dropout site by the i-th mask.

    Args:
        masks: one scaled mask a site, in call order, each of the site's shape.
    """

    def __init__(self, masks: Sequence[Tensor]) -> None:
        super().__init__()
        self._masks = masks
        self._next = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        kind = DROPOUTS.get(func)
        if kind is None:
            return func(*args, **kwargs)
        call = Call.of(kind, args, kwargs)
        if call.p == 0:
            return call.x
        if self._next == len(self._masks):
            raise UnsupportedNetwork(
                f"Expected {len(self._masks)} dropout sites, as when the network was audited, but met one more; "
                "the sites must not depend on the input."
            )
        mask = self._masks[self._next]
        self._next += 1
        return call.x * mask


def run(network: nn.Module, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Logits ``[B, C]`` of one member.

    Raises:
        UnsupportedNetwork: the pass met more or fewer sites than there are masks.
    """
    masking = Masking(masks)
    with masking:
        logits: Tensor = network(x)
    if masking._next != len(masks):
        raise UnsupportedNetwork(
            f"Expected {len(masks)} dropout sites, as when the network was audited, but met {masking._next}; "
            "the sites must not depend on the input."
        )
    return logits


def loop(network: nn.Module, x: Tensor, banks: Sequence[Tensor]) -> Tensor:
    """Logits ``[K, B, C]``, one member after the other: the reference that every faster way is held against."""
    num_samples = banks[0].shape[0]
    return torch.stack([run(network, x, [bank[k] for bank in banks]) for k in range(num_samples)])


def vmap(network: nn.Module, x: Tensor, banks: Sequence[Tensor]) -> Tensor:
    """Logits ``[K, B, C]``, all members at once.

    Only the masks carry the K axis, so everything before the first site is computed once for the batch.
    """

    def member(*masks: Tensor) -> Tensor:
        return run(network, x, masks)

    logits_KBC: Tensor = torch.vmap(member)(*banks)
    return logits_KBC
