"""The autotuner: which strategy runs the members, by the size of the batch, chosen by measuring at the start.

A measurement never decides between strategies that are about as fast: another than the preferred one must be clearly
faster, so that two processes on one machine choose alike. Where they do not, answers differ by rounding alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dubio.uncertainty.dropout.audit import noise_like
from dubio.uncertainty.errors import UnsupportedNetwork
from dubio.uncertainty.execution.choice import FEW, Choice
from dubio.uncertainty.execution.decision import Times, choice, choice_by_members, decide
from dubio.uncertainty.execution.fallback import Dropped, Strategy
from dubio.uncertainty.execution.timing import Clocks

# Batch sizes that are measured; those beyond the last take its choice. Two that follow each other stand where the
# numbers that libraries like end: what fits 16 rows may not fit 17. A few come first, for where there is no time for
# more.
BATCHES = (1, 2, 4, 8, 16, 17, 32, 64, 65, 128)
COARSE = (1, 4, 16, 64)
IN_TURN = (*COARSE, *(batch for batch in BATCHES if batch not in COARSE))
# How many times as slow as the fastest a strategy is that may leave the race: where there is no time for all, or from
# so many rows on where it no longer catches up. (With few rows `thinned` reads much memory for little arithmetic.)
BEHIND = 4.0
BEHIND_ROWS = 8
CATCHES_UP = 0.95  # of the ratio at the size before
# And that must leave it, where it is so at two sizes.
FAR_BEHIND = 30.0
# Times that the sizes are gone through, as far as there is time: what disturbs a size once seldom does so again.
SWEEPS = 3
# The share of the time that is left for calls of a few members.
FEW_SHARE = 0.1
# Calls that count of one strategy at a size, after one that warms up; where they are long, one. A server calls the same
# strategy again, too, which then finds in the caches what another would have driven out.
IN_A_ROW = 2
# Where the strategies take so many seconds a call, only sizes so many times as large as the last are measured.
LONG = 0.02
STRIDE = 4


@dataclass(frozen=True)
class Measured:
    """What was found for one batch size.

    Attributes:
        rows: Of the batch.
        name: Of the strategy that runs it.
        seconds: Of a call of each strategy that was measured, by name.
        reason: Why it was chosen, or why the size was not measured.
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
        few: Seconds of a call of `FEW` members, by strategy and size, where that was to be known.
    """

    choice: Choice
    strategies: Mapping[str, Strategy]
    agreeing: tuple[str, ...]
    measured: tuple[Measured, ...] = ()
    few: Mapping[int, Times] = field(default_factory=dict)

    def __call__(self, x: Tensor, members: slice) -> Tensor:
        return self.strategies[self.choice.strategy(len(x), members.stop - members.start)](x, members)

    def __str__(self) -> str:
        return str(self.choice)


def autotune(
    strategies: Mapping[str, Strategy],
    row: Tensor,
    num_samples: int,
    wanted: str | None = None,
    seconds: float = 2.0,
    dropped: Sequence[Dropped] = (),
    clocks: Clocks | None = None,
) -> Autotuner:
    """Choose by measuring.

    A size is begun where what its calls should take, by those of the size before, is left of the time, and no call is
    begun when the time is up; so measuring takes at most one call longer, and nothing where there is no time. Sizes
    between two that were measured are decided by what both strategies cost there, see
    `dubio.uncertainty.execution.decision`; those beyond the last keep its choice.

    Args:
        strategies: That agree, the preferred one first.
        row: An input, ``[1, ...]``.
        num_samples: K.
        wanted: A choice as text, such as ``chain`` or ``chain up to 16 rows, thinned``, instead of measuring.
        seconds: What measuring may take.
        dropped: What does not run this network, and why.
        clocks: Give the time; by default those for the input's device.

    Raises:
        UnsupportedNetwork: This network cannot be run by the wanted strategies.
    """
    if wanted is not None:
        return _kept(_pinned(wanted, strategies, dropped), strategies)
    # A chain beats whatever runs the network itself, and everything beats the loop.
    chains = [name for name in strategies if name in {"chain", "thinned"}]
    order = chains or [name for name in strategies if name != "loop"] or list(strategies)
    if len(order) == 1:
        return _kept(Choice((order[0],)), strategies)

    def inputs(batch: int) -> Tensor:
        return torch.cat([row, noise_like(row.expand(batch - 1, *row.shape[1:]))])

    clocks = clocks or Clocks.of(row.device)
    asks_few = num_samples >= 2 * FEW
    until, members = clocks.wall() + seconds, slice(0, num_samples)
    end = until - seconds * FEW_SHARE if asks_few else until
    found: dict[int, dict[str, float]] = {}  # seconds a call of those in the race, by size
    skipped: dict[int, str] = {}  # why, by size
    for batch in IN_TURN:
        racing, reason = _racing(order, found, batch, end - clocks.wall())
        if reason is None:
            times = _measure({name: strategies[name] for name in racing}, inputs(batch), members, end, clocks)
            if len(times) == len(racing):
                found = dict(sorted({**found, batch: times}.items()))
                continue
            reason = "not measured to the end, as the time was up"
        skipped[batch] = reason
    for _ in range(SWEEPS - 1):
        for batch, times in found.items():
            if 2 * sum(times.values()) > end - clocks.wall():
                continue
            contest = {name: strategies[name] for name in times}
            for name, each in _measure(contest, inputs(batch), members, end, clocks).items():
                times[name] = min(times[name], each)
    decided, whole = decide(order, found), choice(order, found)
    few: dict[int, Times] = {}
    contest = {name: strategies[name] for name in dict.fromkeys([order[0], *whole.names])}
    for batch in IN_TURN:
        if not asks_few or whole[batch] == order[0]:  # which few members cost no more than others do
            continue
        times = _measure(contest, inputs(batch), slice(0, FEW), until, clocks)
        if len(times) == len(contest):
            few[batch] = times
    chosen = choice_by_members(order, found, few, num_samples, FEW)
    measured = tuple(
        Measured(rows, chosen[rows], found.get(rows, {}), decided[rows].reason if rows in found else skipped[rows])
        for rows in BATCHES
    )
    return _kept(chosen, strategies, measured, few)


def _racing(
    order: Sequence[str], found: Mapping[int, Times], batch: int, left: float
) -> tuple[Sequence[str], str | None]:
    """Say who is measured at a size, and why it is not where it is not.

    Args:
        order: Of the strategies, the preferred one first.
        found: Seconds a call, by size.
        batch: The size.
        left: Seconds.
    """
    smaller = [rows for rows in found if rows < batch]
    if not smaller:
        return order, None if left > 0 else "not measured, as there is no time"
    rows = smaller[-1]
    times, preferred = found[rows], decide(order, found)[rows].name
    ratio = _ratios(times)
    before = _ratios(found[smaller[-2]]) if len(smaller) > 1 else dict.fromkeys(times, 0.0)
    larger = next((_ratios(found[each]) for each in found if each > batch), None)

    def stays(name: str) -> bool:
        if name == preferred or ratio[name] < BEHIND:
            return True
        if larger is not None:
            return larger.get(name, BEHIND) < BEHIND
        catches_up = rows < BEHIND_ROWS or ratio[name] < CATCHES_UP * before.get(name, 1.0)
        return catches_up and min(ratio[name], before.get(name, 1.0)) < FAR_BEHIND

    def expected() -> float:
        return 2 * batch / rows * sum(times[name] for name in racing)

    racing = [name for name in times if stays(name)]
    if expected() >= left:
        racing = [name for name in racing if name == preferred or ratio[name] < BEHIND]
    if len(racing) == 1:
        return racing, "the others were far behind"
    if min(times[name] for name in racing) > LONG and batch < STRIDE * rows:
        return racing, f"not measured, as calls take long and {rows} rows were"
    if expected() >= left:
        return racing, f"not measured, which would take {expected():.2g} s of {max(0.0, left):.2g} s left"
    return racing, None


def _ratios(times: Times) -> dict[str, float]:
    fastest = max(min(times.values()), 1e-9)
    return {name: each / fastest for name, each in times.items()}


def _kept(
    choice: Choice,
    strategies: Mapping[str, Strategy],
    measured: tuple[Measured, ...] = (),
    few: Mapping[int, Times] | None = None,
) -> Autotuner:
    used = {name: strategies[name] for name in strategies if name in choice.all_names}
    return Autotuner(choice, used, tuple(strategies), measured, few or {})


def _pinned(wanted: str, strategies: Mapping[str, Strategy], dropped: Sequence[Dropped]) -> Choice:
    """Read a choice that this network can be run by."""
    try:
        choice = Choice.parse(wanted)
    except ValueError as error:
        raise UnsupportedNetwork(f"`strategy`: {error}.") from error
    for name in choice.all_names:
        if name not in strategies:
            why = next((f", which does not: {each.reason}" for each in dropped if each.name == name), "")
            raise UnsupportedNetwork(
                f"Expected `strategy` to be one of {list(strategies)}, which run this network, but got {name!r}{why}."
            )
    return choice


def _measure(
    strategies: Mapping[str, Strategy], x: Tensor, members: slice, end: float, clocks: Clocks
) -> dict[str, float]:
    """Give the least seconds of a call of each strategy, as far as they were called when the time is up."""
    times: dict[str, float] = {}
    for name, strategy in strategies.items():
        first = math.inf
        for call in range(1 + IN_A_ROW):
            if clocks.wall() >= end:
                return times
            start = clocks.cost()
            strategy(x, members)
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
            taken = clocks.cost() - start
            if not call:
                first = taken
                continue
            times[name] = min(taken, times.get(name, taken))
            if min(first, taken) > LONG:  # and not one of them alone, which something else held up
                break
    return times
