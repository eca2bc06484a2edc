"""The autotuner: which strategy runs the members, by the size of the batch, chosen by measuring at the start.

A measurement never decides between strategies that are about as fast: another than the preferred one must be clearly
faster, so that two processes on one machine choose alike. Where they do not, answers differ by rounding alone.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dubio.uncertainty.dropout.audit import noise_like
from dubio.uncertainty.errors import UnsupportedNetwork
from dubio.uncertainty.execution.choice import Choice
from dubio.uncertainty.execution.fallback import Dropped, Strategy

# Batch sizes that are measured. A batch takes the choice of the next one; those beyond the last take its choice. Two
# that follow each other stand where the numbers that libraries like end: what fits 16 rows may not fit 17.
BATCHES = (1, 2, 4, 8, 16, 17, 32, 64, 65, 128)
# How much faster than the preferred strategy another must be, and how many seconds it must save.
MIN_SPEEDUP = 1.15
MIN_SAVED = 1e-4
# How many times as slow as the fastest a strategy is that may leave the race: where there is no time for all, or from
# so many rows on where it no longer catches up. (With few rows `thinned` reads much memory for little arithmetic.)
BEHIND = 4.0
BEHIND_ROWS = 8
CATCHES_UP = 0.95  # of the ratio at the size before
# And that must leave it, where it is so at two sizes.
FAR_BEHIND = 30.0
# Turns of a size that count, after one that warms up.
ROUNDS = 3
# Calls of one turn, where they are short: a server calls the same strategy again, which then finds in the caches what
# another would have driven out.
IN_A_ROW = 4
# Where the strategies take so many seconds a call, only sizes so many times as large as the last are measured.
LONG = 0.02
STRIDE = 4


@dataclass(frozen=True)
class Measured:
    """What was found for one batch size.

    Attributes:
        rows: Of the batch.
        name: Of the strategy that was chosen.
        seconds: Of a call of each strategy that was measured, by name.
        reason: Why it was chosen.
    """

    rows: int
    name: str
    seconds: Mapping[str, float]
    reason: str


@dataclass(frozen=True)
class Autotuner:
    """The strategy for each batch size.

    Attributes:
        choice: Which strategy runs batches of which size.
        strategies: Those of the choice, by name; others, and the memory that they hold, are not kept.
        agreeing: Names of all strategies that could have been chosen.
        measured: What was found for each of `BATCHES`; empty where nothing was to be chosen.
    """

    choice: Choice
    strategies: Mapping[str, Strategy]
    agreeing: tuple[str, ...]
    measured: tuple[Measured, ...] = ()

    def __call__(self, x: Tensor, members: slice) -> Tensor:
        choice = self.choice
        return self.strategies[choice.names[bisect_left(choice.limits, len(x))]](x, members)

    def __str__(self) -> str:
        return str(self.choice)


def autotune(
    strategies: Mapping[str, Strategy],
    row: Tensor,
    num_samples: int,
    wanted: str | None = None,
    seconds: float = 2.0,
    dropped: Sequence[Dropped] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> Autotuner:
    """Choose by measuring.

    A size is measured where what its two first turns should take, by those of the size before, is left of the time; so
    measuring takes little more than that, and nothing where there is none. A size that is not measured keeps the choice
    of the one before.

    Args:
        strategies: That agree, the preferred one first.
        row: An input, ``[1, ...]``.
        num_samples: K.
        wanted: A choice as text, such as ``chain`` or ``chain up to 16 rows, thinned``, instead of measuring.
        seconds: What measuring may take, roughly.
        dropped: What does not run this network, and why.
        clock: Gives the time in seconds.

    Raises:
        UnsupportedNetwork: This network cannot be run by the wanted strategies.
    """
    if wanted is not None:
        return _kept(_pinned(wanted, strategies, dropped), strategies)
    # A chain, or packed steps, beat whatever runs the network itself, and everything beats the loop.
    chains = [name for name in strategies if name in {"chain", "thinned", "packed"}]
    order = chains or [name for name in strategies if name != "loop"] or list(strategies)
    if len(order) == 1:
        return _kept(Choice((order[0],)), strategies)
    end, preferred, rows = clock() + seconds, order[0], 0
    last: dict[str, float] = dict.fromkeys(order, 0.0)  # seconds a call at the size before, of those in the race
    behind: dict[str, float] = {}  # how many times as slow as the fastest each was there
    measured: list[Measured] = []
    for index, batch in enumerate(BATCHES):
        scale, times = 2 * batch / max(1, rows), dict[str, float]()
        if end - clock() <= scale * sum(last.values()):
            last = {name: each for name, each in last.items() if name == preferred or behind.get(name, 0) < BEHIND}
        expected = scale * sum(last.values())
        if len(last) == 1:
            reason = "the others were far behind"
        elif min(last.values()) > LONG and batch < STRIDE * rows:
            reason = f"not measured, as calls take long and {rows} rows were"
        elif end - clock() <= expected:
            reason = f"not measured, which would take {expected:.2g} s of {max(0.0, end - clock()):.2g} s left"
        else:
            x = torch.cat([row, noise_like(row.expand(batch - 1, *row.shape[1:]))])
            share = clock() + (end - clock()) / (len(BATCHES) - index)
            times = _measure({name: strategies[name] for name in last}, x, slice(0, num_samples), share, clock)
            behind = behind or dict.fromkeys(times, 0.0)  # one size alone lets nobody leave
            fastest = min(times, key=times.__getitem__)
            reason = "the fastest" if fastest == preferred else f"{fastest} is not clearly faster"
            if times[preferred] >= max(MIN_SPEEDUP * times[fastest], times[fastest] + MIN_SAVED):
                preferred, reason = fastest, "clearly the fastest"
            ratios = {name: each / max(times[fastest], 1e-9) for name, each in times.items()}
            stays = {
                name
                for name, ratio in ratios.items()
                if name == preferred
                or ratio < BEHIND
                or (
                    min(ratio, behind[name]) < FAR_BEHIND and (batch < BEHIND_ROWS or ratio < CATCHES_UP * behind[name])
                )
            }
            last, behind, rows = {name: times[name] for name in order if name in stays}, ratios, batch
        measured.append(Measured(batch, preferred, times, reason))
    return _kept(Choice.of([each.name for each in measured], BATCHES), strategies, tuple(measured))


def _kept(choice: Choice, strategies: Mapping[str, Strategy], measured: tuple[Measured, ...] = ()) -> Autotuner:
    used = {name: strategies[name] for name in strategies if name in choice.names}
    return Autotuner(choice, used, tuple(strategies), measured)


def _pinned(wanted: str, strategies: Mapping[str, Strategy], dropped: Sequence[Dropped]) -> Choice:
    """Read a choice that this network can be run by."""
    try:
        choice = Choice.parse(wanted)
    except ValueError as error:
        raise UnsupportedNetwork(f"`strategy`: {error}.") from error
    for name in choice.names:
        if name not in strategies:
            why = next((f", which does not: {each.reason}" for each in dropped if each.name == name), "")
            raise UnsupportedNetwork(
                f"Expected `strategy` to be one of {list(strategies)}, which run this network, but got {name!r}{why}."
            )
    return choice


def _measure(
    strategies: Mapping[str, Strategy], x: Tensor, members: slice, end: float, clock: Callable[[], float]
) -> dict[str, float]:
    """Give the least seconds of each strategy; they take turns, once to warm up and then until the time is up.

    One that is clearly behind takes its turn once.
    """
    times = dict.fromkeys(strategies, float("inf"))
    for turn in range(1 + ROUNDS):
        for name, strategy in strategies.items():
            if turn > 1 and times[name] > BEHIND * min(times.values()):
                continue
            for _ in range(IN_A_ROW if times[name] < LONG else 1):
                start = clock()
                strategy(x, members)
                if x.is_cuda:
                    torch.cuda.synchronize(x.device)
                if turn:
                    times[name] = min(times[name], clock() - start)
        if turn and clock() > end:
            break
    return times
