"""Batched chains: all members in one pass over the network's own weights, as K times B rows with masks of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dubio.uncertainty.dropout.audit import SamplingPlan
from dubio.uncertainty.execution import kernels
from dubio.uncertainty.execution.chain import Chain, FirstSite, Mask
from dubio.uncertainty.execution.kernels import Kernel

# Numbers in the largest activation of one pass: more than the caches hold would be written to memory and read back.
CACHED = 2 * 2**20
# Of a batch, at which ways to compute a layer are compared.
ROWS = (1, 8, 32)


def cached(max_numbers: int, device: torch.device) -> int:
    """Give how many numbers an activation should hold on a device where so many fit."""
    return min(max_numbers, CACHED) if device.type == "cpu" else max_numbers


def prefix(chain: Chain, plan: SamplingPlan, end: float = math.inf) -> Kernel:
    """What the members share: from ``[B, ...]`` to what the first site sees, once for the batch.

    Args:
        chain: As recorded.
        plan: Of the network, which runs that part where it is no chain.
        end: Until when kernels may be compared, by `time.perf_counter`.
    """
    if chain.prefix is None:
        return lambda x: FirstSite(plan).activation(x)
    layers = [kernels.prepare(layer, ROWS, end) for layer in chain.prefix]

    def run(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    return run


class BatchedChain:
    """The members of a chain as one batch. Immutable, so thread-safe.

    Args:
        prefix: Gives the first site's activation.
        chain: As recorded.
        banks: Scaled masks, ``[K, *site.shape]`` a site.
        max_numbers: How many numbers an activation may hold.
        end: Until when kernels may be compared, by `time.perf_counter`.
    """

    def __init__(
        self, prefix: Kernel, chain: Chain, banks: Sequence[Tensor], max_numbers: int, end: float = math.inf
    ) -> None:
        self._prefix = prefix
        # A site is its number, any other layer its kernel.
        rows = [len(banks[0]) * each for each in ROWS]
        self._steps = [
            layer.site if isinstance(layer, Mask) else kernels.prepare(layer, rows, end) for layer in chain.layers
        ]
        self._masks = [bank.unsqueeze(1) for bank in banks]
        self._row_numel = chain.row_numel
        self._max_rows = max(1, max_numbers // chain.row_numel)
        self._max_numbers = cached(max_numbers, banks[0].device)

    def __call__(self, x: Tensor, members: slice) -> Tensor:
        if len(x) <= self._max_rows:
            return self._chunk(x, members)
        return torch.cat([self._chunk(rows, members) for rows in torch.split(x, self._max_rows)], dim=1)

    def _chunk(self, x: Tensor, members: slice) -> Tensor:
        activation = self._prefix(x)
        step = max(1, self._max_numbers // (len(x) * self._row_numel))
        first, last = members.start, members.stop
        if last - first <= step:
            return self._run(activation, first, last)
        return torch.cat([self._run(activation, k, min(k + step, last)) for k in range(first, last, step)])

    def _run(self, x: Tensor, first: int, last: int) -> Tensor:
        batch, count, shared = len(x), last - first, True
        for step in self._steps:
            if not isinstance(step, int):
                x = step(x)
                continue
            mask = self._masks[step]
            if count < len(mask):
                mask = mask[first:last]
            if shared:
                # All members' activation, which cannot be overwritten.
                x, shared = (x * mask).flatten(0, 1), False
            else:
                x.unflatten(0, (count, batch)).mul_(mask)
        return x.view(count, batch, -1)
