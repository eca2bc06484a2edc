"""Members: thinned networks, run without switching any mode.

While a member runs, a dropout call multiplies by the member's mask instead of doing nothing. That is local to the
thread, so eval-mode predictions in other threads, and the network itself, never notice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dubio.uncertainty.dropout.function_mode import Call, DropoutMode
from dubio.uncertainty.dropout.sites import PlannedCall
from dubio.uncertainty.errors import UnsupportedNetwork


class Sampled(nn.Module):
    """A network and the slots that its audit found; takes the place of the network below.

    Args:
        network: in eval mode.
        slots: the calls that a pass makes, in order.
        zeros: whether calls with a rate of 0 are among them.
    """

    def __init__(self, network: nn.Module, slots: Sequence[PlannedCall], zeros: bool = False) -> None:
        super().__init__()
        self.network = network
        self.slots = tuple(slots)
        self.zeros = zeros
        self.overwrites = any(slot.inplace and slot.site for slot in slots)


class Masking(DropoutMode):
    """Applies the i-th mask at the i-th dropout site.

    Args:
        masks: one scaled mask a site, in call order, each of the site's shape.
        sampled: says where masks go; without it every dropout call with p > 0 takes one and multiplies by it.
        batch: rows of the pass, without members.
        num_members: how many members are folded into the batch, if so.
        overwrite: whether a call that works in place does.
    """

    def __init__(
        self,
        masks: Sequence[Tensor],
        sampled: Sampled | None = None,
        batch: int = 0,
        num_members: int | None = None,
        overwrite: bool = True,
    ) -> None:
        super().__init__(zeros=sampled is not None and sampled.zeros)
        self._masks = masks
        self._slots = None if sampled is None else sampled.slots
        self._batch = batch
        self._num_members = num_members
        self._overwrite = overwrite
        self._used = 0
        self._met = 0

    def drop(self, call: Call) -> Tensor:
        slot = self._next(call)
        if slot is None or slot.site is not None:
            mask = self._masks[self._used]
            self._used += 1
            if slot is None:
                return call.x * mask
            dropped = slot.apply(call, mask, self._batch, self._num_members)
            # Whoever holds the input sees what was dropped from it, as in training.
            return call.x.copy_(dropped) if slot.inplace and self._overwrite else dropped
        return call.x

    def finish(self) -> None:
        """Refuse a pass that met fewer sites than there are masks.

        Raises:
            UnsupportedNetwork: the sites depend on the input.
        """
        if self._used != len(self._masks) or (self._slots is not None and self._met != len(self._slots)):
            raise UnsupportedNetwork(
                f"Expected {self._due} dropout sites, as when the network was audited, but met {self._met}; "
                "the sites must not depend on the input."
            )

    @property
    def _due(self) -> int:
        return len(self._masks) if self._slots is None else len(self._slots)

    def _next(self, call: Call) -> PlannedCall | None:
        if self._met == self._due:
            raise UnsupportedNetwork(
                f"Expected {self._due} dropout sites, as when the network was audited, but met one more; "
                "the sites must not depend on the input."
            )
        slot = None if self._slots is None else self._slots[self._met]
        if slot is not None and (slot.kind, slot.p) != (call.kind, call.p):
            raise UnsupportedNetwork(
                f"Expected dropout site {self._met} to be {slot.kind} with p={slot.p:g}, as when the network was "
                f"audited, but met {call.kind} with p={call.p:g}; the sites must not depend on the input."
            )
        self._met += 1
        return slot


def run(network: nn.Module, x: Tensor, masks: Sequence[Tensor], overwrite: bool = True) -> Tensor:
    """Logits ``[B, C]`` of one member.

    Args:
        network: in eval mode; plain, or :class:`Sampled`.
        x: ``[B, ...]``, left alone.
        masks: one a site.
        overwrite: whether a dropout call that works in place does, within the pass.

    Raises:
        UnsupportedNetwork: the pass met other sites than the audit.
    """
    return _pass(network, x, masks, len(x), None, overwrite)


def loop(network: nn.Module, x: Tensor, banks: Sequence[Tensor]) -> Tensor:
    """Logits ``[K, B, C]``, one member after the other: the reference that every faster way is held against."""
    num_samples = banks[0].shape[0]
    return torch.stack([run(network, x, [bank[k] for bank in banks]) for k in range(num_samples)])


def vmap(network: nn.Module, x: Tensor, banks: Sequence[Tensor]) -> Tensor:
    """Logits ``[K, B, C]``, all members at once.

    Only the masks carry the K axis, so everything before the first site is computed once for the batch.
    """

    def member(*masks: Tensor) -> Tensor:
        # What all members share cannot be overwritten with what differs between them.
        return run(network, x, masks, overwrite=False)

    logits_KBC: Tensor = torch.vmap(member)(*banks)
    return logits_KBC


def fold(network: nn.Module, x: Tensor, banks: Sequence[Tensor]) -> Tensor:
    """Logits ``[K, B, C]``, all members as one batch of K times B rows: for what vmap cannot do, such as an LSTM."""
    num_samples = banks[0].shape[0]
    repeated = x.repeat(num_samples, *[1] * (x.ndim - 1))
    logits = _pass(network, repeated, banks, len(x), num_samples, True)
    return logits.view(num_samples, len(x), -1)


def _pass(
    network: nn.Module, x: Tensor, masks: Sequence[Tensor], batch: int, num_members: int | None, overwrite: bool
) -> Tensor:
    sampled = network if isinstance(network, Sampled) else None
    if sampled is not None:
        network = sampled.network
        if sampled.overwrites and overwrite:
            x = x.clone()  # the caller's; the first site may be on the input itself
    masking = Masking(masks, sampled, batch, num_members, overwrite)
    with masking:
        logits: Tensor = network(x)
    masking.finish()
    return logits
