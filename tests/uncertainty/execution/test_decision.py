"""Decisions between strategies, at sizes that were measured and between them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dubio.uncertainty.execution.choice import Choice
from dubio.uncertainty.execution.decision import MIN_SPEEDUP, choice, decide

SIZES = (1, 2, 4, 8, 16, 17, 32, 64, 65, 128)


def _found(**costs: Callable[[int], float]) -> dict[int, dict[str, float]]:
    return {rows: {name: cost(rows) for name, cost in costs.items()} for rows in SIZES}


def test_between_two_sizes_the_change_lies_where_the_next_becomes_clearly_faster():
    found = _found(chain=lambda rows: 0.36e-3 * rows, thinned=lambda rows: (2.8 + 0.19 * rows) * 1e-3)
    # .36 B >= 1.15 (2.8 + .19 B) from B = 22.8 on.
    assert choice(["chain", "thinned"], found) == Choice(("chain", "thinned"), (22,))


@pytest.mark.parametrize("slope", [0.2, 0.3, 0.36, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("sizes", [SIZES, (1, 4, 16, 64), (1, 128)])
def test_no_size_costs_more_than_the_factor_times_the_fastest(slope, sizes):
    costs = {"chain": lambda rows: slope * rows, "thinned": lambda rows: 2.8 + 0.19 * rows}
    found = {rows: {name: cost(rows) for name, cost in costs.items()} for rows in sizes}
    chosen = choice(list(costs), found)
    for rows in range(1, 129):
        assert costs[chosen[rows]](rows) <= MIN_SPEEDUP * min(cost(rows) for cost in costs.values()) * (1 + 1e-9)


def test_what_jumps_behind_a_size_is_left_there():
    found = _found(chain=lambda rows: 0.1 if rows > 16 else 0.01, thinned=lambda rows: 0.02)
    assert choice(["chain", "thinned"], found) == Choice(("chain", "thinned"), (16,))


def test_what_left_the_race_is_not_kept():
    found = {1: {"chain": 0.001, "thinned": 0.002}, 2: {"thinned": 0.003}}
    assert choice(["chain", "thinned"], found) == Choice(("chain", "thinned"), (1,))
    assert decide(["chain", "thinned"], found)[2].reason == "clearly the fastest"


def test_without_a_measurement_it_is_the_preferred_one():
    assert choice(["chain", "thinned"], {}) == Choice(("chain",))
