"""The autotuner: which strategy runs the members, by the size of the batch, chosen by measuring at the start.

A measurement never decides between strategies that are about as fast: another than the preferred one must be clearly
faster, so that two processes on one machine choose alike. Where they do not, answers differ by rounding alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dubio.uncertainty.dropout.audit import noise_like
from dubio.uncertainty.errors import UnsupportedNetwork
from dubio.uncertainty.execution.fallback import Dropped, Strategy

# Batch sizes that are measured. A batch takes the choice of the next one; those beyond the last take its choice.
BATCHES = (1, 4, 16, 64)
# How much faster than the preferred strategy another must be, and how many seconds it must save.
MIN_SPEEDUP = 1.2
MIN_SAVED = 2e-4
# Of one size to the one before.
BATCH_RATIO = 4
ROUNDS = 5
NAMES = ("chain", "thinned", "traced", "vmap", "fold", "loop")


@dataclass(frozen=True)
class Autotuner:
    """The strategy for each batch size.

    Attributes:
        names: Of the strategy for each of `BATCHES`.
        strategies: By name.
    """

    names: tuple[str, ...]
    strategies: Mapping[str, Strategy]

    def __call__(self, x: Tensor, members: slice) -> Tensor:
        index = next((index for index, batch in enumerate(BATCHES) if len(x) <= batch), -1)
        return self.strategies[self.names[index]](x, members)

    def __str__(self) -> str:
        """Say ``chain up to 16 rows, thinned`` or, where one strategy serves all, its name."""
        parts = [
            f"{name} up to {batch} row{'s' if batch > 1 else ''}"
            for name, following, batch in zip(self.names, self.names[1:], BATCHES, strict=False)
            if following != name
        ]
        return ", ".join([*parts, self.names[-1]])


def autotune(
    strategies: Mapping[str, Strategy],
    row: Tensor,
    num_samples: int,
    wanted: str | None = None,
    seconds: float = 2.0,
    thinned_from: int | None = 1,
    dropped: Sequence[Dropped] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> Autotuner:
    """Choose by measuring.

    Args:
        strategies: That agree, the preferred one first.
        row: An input, ``[1, ...]``.
        num_samples: K.
        wanted: The name of the strategy for all batches, instead of measuring.
        seconds: What measuring may take, roughly; sizes that would take longer keep the preferred strategy.
        thinned_from: Batch size from which ``thinned`` is preferred, where it is among the strategies; None for never.
        dropped: What does not run this network, and why.
        clock: Gives the time in seconds.

    Raises:
        UnsupportedNetwork: This network cannot be run by the wanted strategy.
    """
    if wanted is not None:
        if wanted not in strategies:
            why = next((f", which does not: {each.reason}" for each in dropped if each.name == wanted), "")
            raise UnsupportedNetwork(
                f"Expected `strategy` to be one of {list(strategies)}, which run this network, but got "
                f"{wanted!r:.80}{why}."
            )
        return Autotuner((wanted,) * len(BATCHES), strategies)
    names: list[str] = []
    # A chain beats whatever runs the network itself, and everything beats the loop.
    chains = [name for name in strategies if name in {"chain", "thinned"}]
    order = chains or [name for name in strategies if name != "loop"] or list(strategies)
    end, cost = clock() + seconds, 0.0
    for batch in BATCHES:
        ruled = "thinned" if "thinned" in order and thinned_from is not None and batch >= thinned_from else None
        # A size that is not measured takes the rule, or the choice of the one before.
        preferred = ruled or (names[-1] if names else order[0])
        left = end - clock()
        if len(order) > 1 and 2 * BATCH_RATIO * cost < left:
            preferred = ruled or order[0]
            x = torch.cat([row, noise_like(row.expand(batch - 1, *row.shape[1:]))])
            share = clock() + min(left, seconds / len(BATCHES))
            times = _measure({name: strategies[name] for name in order}, x, slice(0, num_samples), share, clock)
            cost = sum(times.values())
            fastest = min(times, key=times.__getitem__)
            if times[preferred] >= max(MIN_SPEEDUP * times[fastest], times[fastest] + MIN_SAVED):
                preferred = fastest
        names.append(preferred)
    return Autotuner(tuple(names), strategies)


def _measure(
    strategies: Mapping[str, Strategy], x: Tensor, members: slice, end: float, clock: Callable[[], float]
) -> dict[str, float]:
    """Give the least seconds of each strategy; they take turns, once to warm up and then until the time is up."""
    times = dict.fromkeys(strategies, float("inf"))
    for turn in range(1 + ROUNDS):
        for name, strategy in strategies.items():
            start = clock()
            strategy(x, members)
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
            if turn or clock() > end:
                times[name] = min(times[name], clock() - start)
        if turn and clock() > end:
            break
    return times
