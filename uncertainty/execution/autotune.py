"""The strategy: which way runs the members, by the size of the batch, chosen by measuring when the committee is built.

A measurement never decides between strategies that are about as fast: another than the preferred one must be clearly
faster, so that two processes on one machine choose alike. Where they do not, answers differ by rounding alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dubio.uncertainty.dropout.audit import noise_like
from dubio.uncertainty.errors import UnsupportedNetwork
from dubio.uncertainty.execution.strategies import Strategy

# Batch sizes that are measured. A batch takes the choice of the next one; those beyond the last take its choice.
BATCHES = (1, 4, 16, 64)
# How much faster another way must be than the preferred one, and how many seconds it must save.
CLEARLY = 1.2
SAVED = 2e-4
RATIO = 4  # of one size to the one before
TURNS = 5
NAMES = ("chain", "thinned", "traced", "vmap", "fold", "loop")


@dataclass(frozen=True)
class Autotuner:
    """The way for each batch size.

    Attributes:
        names: of the way for each of :data:`BATCHES`.
        strategies: by name.
    """

    names: tuple[str, ...]
    strategies: Mapping[str, Strategy]

    def __call__(self, x: Tensor, which: slice) -> Tensor:
        """Logits ``[K, B, C]`` of some members for a batch of any size ``[B, ...]``."""
        rows = len(x)
        for batch, name in zip(BATCHES, self.names, strict=True):
            if rows <= batch:
                return self.strategies[name](x, which)
        return self.strategies[self.names[-1]](x, which)

    def __str__(self) -> str:
        """Say ``chain up to 16 rows, thinned`` or, where one way serves all, its name."""
        parts: list[str] = []
        for index, name in enumerate(self.names):
            if index + 1 == len(self.names):
                parts.append(name)
            elif self.names[index + 1] != name:
                parts.append(f"{name} up to {BATCHES[index]} row{'s' if BATCHES[index] > 1 else ''}")
        return ", ".join(parts)


def choose(
    strategies: Mapping[str, Strategy],
    row: Tensor,
    num_samples: int,
    wanted: str | None = None,
    seconds: float = 2.0,
    thinned_from: int = 1,
) -> Autotuner:
    """Choose by measuring.

    Args:
        strategies: that agree, the preferred one first.
        row: an input, ``[1, ...]``.
        num_samples: K.
        wanted: the name of the way for all batches, instead of measuring.
        seconds: what measuring may take, roughly; sizes that would take longer keep the preferred way.
        thinned_from: batch size from which ``thinned`` is preferred, where it is among the strategies.

    Raises:
        UnsupportedNetwork: this network cannot be run in the wanted way.
    """
    if wanted is not None:
        if wanted not in strategies:
            raise UnsupportedNetwork(
                f"Expected `strategy` to be one of {list(strategies)}, which run this network, but got {wanted!r:.80}."
            )
        return Autotuner((wanted,) * len(BATCHES), strategies)
    names: list[str] = []
    # A chain beats whatever runs the network itself, and everything beats the loop.
    best = [name for name in strategies if name in {"chain", "thinned"}]
    order = best or [name for name in strategies if name != "loop"] or list(strategies)
    end, cost = time.perf_counter() + seconds, 0.0
    for batch in BATCHES:
        ruled = "thinned" if "thinned" in order and batch >= thinned_from else None
        # A size that is not measured takes the rule, or the choice of the one before.
        preferred = ruled or (names[-1] if names else order[0])
        left = end - time.perf_counter()
        if len(order) > 1 and 2 * RATIO * cost < left:
            preferred = ruled or order[0]
            x = torch.cat([row, noise_like(row.expand(batch - 1, *row.shape[1:]))])
            share = time.perf_counter() + min(left, seconds / len(BATCHES))
            times = _measure({name: strategies[name] for name in order}, x, slice(0, num_samples), share)
            cost = sum(times.values())
            fastest = min(times, key=times.__getitem__)
            if times[preferred] >= max(CLEARLY * times[fastest], times[fastest] + SAVED):
                preferred = fastest
        names.append(preferred)
    return Autotuner(tuple(names), strategies)


def _measure(strategies: Mapping[str, Strategy], x: Tensor, which: slice, end: float) -> dict[str, float]:
    """Least seconds of each way; they take turns, once to warm up and then until the time is up."""
    times = dict.fromkeys(strategies, float("inf"))
    for turn in range(1 + TURNS):
        for name, way in strategies.items():
            start = time.perf_counter()
            way(x, which)
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
            if turn or time.perf_counter() > end:
                times[name] = min(times[name], time.perf_counter() - start)
        if turn and time.perf_counter() > end:
            break
    return times
