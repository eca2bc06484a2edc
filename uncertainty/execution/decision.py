"""The decision: from what calls of each strategy take at some batch sizes to the strategy for every size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from dubio.uncertainty.execution.choice import Choice

# How much faster than the preferred strategy another must be, and how many seconds it must save.
MIN_SPEEDUP = 1.15
MIN_SAVED = 1e-4

Times = Mapping[str, float]
"""Seconds of a call at one size, by strategy."""


@dataclass(frozen=True)
class Decided:
    """What was decided for one size.

    Attributes:
        name: Of the strategy.
        reason: Why.
    """

    name: str
    reason: str


def decide(order: Sequence[str], found: Mapping[int, Times]) -> dict[int, Decided]:
    """Decide at each size that was measured: the strategy of the size before is kept until another is clearly faster.

    Args:
        order: Of the strategies, the preferred one first.
        found: By number of rows, increasing.
    """
    preferred, decided = order[0], dict[int, Decided]()
    for rows, times in found.items():
        fastest = min(times, key=times.__getitem__)
        reason = "the fastest" if fastest == preferred else f"{fastest} is not clearly faster"
        if preferred not in times or _clearly_slower(times[preferred], times[fastest]):
            preferred, reason = fastest, "clearly the fastest"
        decided[rows] = Decided(preferred, reason)
    return decided


def choice(order: Sequence[str], found: Mapping[int, Times]) -> Choice:
    """Give the choice for every size.

    Between two sizes that were measured the cost of a strategy is taken to lie on the straight line between them, and
    the change of strategies, where there is one, lies where the next becomes clearly faster.
    """
    decided = decide(order, found)
    if not decided:
        return Choice((order[0],))
    names, sizes = [], []
    for last, rows in pairwise(decided):
        names.append(decided[last].name)
        sizes.append(_change(last, rows, decided[last].name, decided[rows].name, found))
    return Choice.of([*names, decided[max(decided)].name], [*sizes, max(decided)])


def choice_by_members(
    order: Sequence[str], found: Mapping[int, Times], few: Mapping[int, Times], members: int, few_members: int
) -> Choice:
    """Give the choice for every size, and for calls of a few members where that is another one.

    From the few to all the cost of a strategy is taken to lie on a straight line.

    Args:
        order: Of the strategies, the preferred one first.
        found: By number of rows, increasing, for all members.
        few: For a few of them, at sizes where another strategy than the preferred one runs all.
        members: How many all are.
        few_members: How many the few were.
    """
    whole = choice(order, found)
    if not few:
        return whole
    preferred = {rows: {order[0]: 0.0} for rows in found if whole[rows] == order[0]}
    other = choice(order, dict(sorted({**preferred, **few}.items())))
    shares = []  # of the way from the few to all, where the lines of two strategies cross
    for rows, times in few.items():
        name, rival, known = whole[rows], other[rows], found.get(rows, {})
        if name != rival:
            saved = times[name] - times[rival]
            # Of what was not measured for all members the one takes as much more as they are, and the other no more:
            # then the lines cross first.
            lost = known.get(rival, times[rival] * members / few_members) - known.get(name, times[name])
            # Where strategies are about as fast, the lines may cross before the few, or never.
            shares.append(min(1.0, max(0.0, saved / max(saved + lost, 1e-12))))
    if not shares:
        return whole
    return replace(whole, few=other, most_few=few_members + int(min(shares) * (members - few_members)))


def _change(last: int, rows: int, old: str, new: str, found: Mapping[int, Times]) -> int:
    """Give the size up to which the old strategy runs, at least the last one that was measured."""
    if old == new or old not in found[rows] or new not in found[last]:
        return last

    def at(size: int, name: str) -> float:
        share = (size - last) / (rows - last)
        return (1 - share) * found[last][name] + share * found[rows][name]

    between = range(last + 1, rows)
    return next((size for size in between if _clearly_slower(at(size, old), at(size, new))), rows) - 1


def _clearly_slower(seconds: float, fastest: float) -> bool:
    return seconds >= max(MIN_SPEEDUP * fastest, fastest + MIN_SAVED)
