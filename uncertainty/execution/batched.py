"""Folded chains: all members in one pass over the network's own weights, as K times B rows with masks of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dubio.uncertainty.dropout.sites import PlannedCall
from dubio.uncertainty.execution import kernels
from dubio.uncertainty.execution.chain import Chain, FirstSite, Layer, Mask

# Numbers in the largest activation of one pass: more than the caches hold would be written to memory and read back.
CACHED = 2 * 2**20


def cached(max_numbers: int, device: torch.device) -> int:
    """How many numbers an activation should hold on a device where so many fit."""
    return min(max_numbers, CACHED) if device.type == "cpu" else max_numbers


class Before:
    """What the members share: the network up to its first site, once for the batch.

    Args:
        chain: as recorded.
        network: runs it where that part is no chain.
        slots: as audited.
        zeros: whether calls with a rate of 0 are among the slots.
    """

    def __init__(self, chain: Chain, network: nn.Module, slots: Sequence[PlannedCall], zeros: bool) -> None:
        self._layers = None if chain.before is None else [kernels.prepared(layer) for layer in chain.before]
        self._network, self._slots, self._zeros = network, slots, zeros

    def __call__(self, x: Tensor) -> Tensor:
        """What the first site sees for ``[B, ...]``."""
        if self._layers is None:
            return FirstSite(self._slots, self._zeros).activation(self._network, x)
        for layer in self._layers:
            x = layer(x)
        return x


class Folded:
    """The members of a chain as one batch. Immutable, so thread-safe.

    Args:
        before: gives the first site's activation.
        chain: as recorded.
        banks: scaled masks, ``[K, *site.shape]`` a site.
        max_numbers: how many numbers an activation may hold.
    """

    def __init__(self, before: Before, chain: Chain, banks: Sequence[Tensor], max_numbers: int) -> None:
        self._before = before
        self._steps = [_step(layer) for layer in chain.after]
        self._masks = [bank.unsqueeze(1) for bank in banks]
        self._row_numel = chain.row_numel
        self._max_rows = max(1, max_numbers // chain.row_numel)
        self._max_numbers = cached(max_numbers, banks[0].device)

    def __call__(self, x: Tensor, which: slice) -> Tensor:
        """Logits ``[K, B, C]`` of some members for a batch of any size ``[B, ...]``."""
        if len(x) <= self._max_rows:
            return self._rows(x, which)
        return torch.cat([self._rows(rows, which) for rows in torch.split(x, self._max_rows)], dim=1)

    def _rows(self, x: Tensor, which: slice) -> Tensor:
        activation = self._before(x)
        step = max(1, self._max_numbers // (len(x) * self._row_numel))
        first, last = which.start, which.stop
        if last - first <= step:
            return self._members(activation, first, last)
        return torch.cat([self._members(activation, k, min(k + step, last)) for k in range(first, last, step)])

    def _members(self, x: Tensor, first: int, last: int) -> Tensor:
        batch, count, shared = len(x), last - first, True
        for step in self._steps:
            if not isinstance(step, int):
                x = step(x)
                continue
            mask = self._masks[step]
            if count < len(mask):
                mask = mask[first:last]
            if shared:
                # Everybody's activation, which cannot be overwritten.
                x, shared = (x * mask).flatten(0, 1), False
            else:
                x.unflatten(0, (count, batch)).mul_(mask)
        return x.view(count, batch, -1)


def _step(layer: Layer) -> int | kernels.Kernel:
    return layer.site if isinstance(layer, Mask) else kernels.prepared(layer)
