"""Decisions between strategies, at sizes that were measured and between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dubio.uncertainty.execution.choice import Choice
from dubio.uncertainty.execution.decision import MIN_SPEEDUP, choice, choice_by_members, decide

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


ORDER = ["chain", "thinned"]


def test_a_few_members_keep_what_is_faster_for_them_up_to_where_the_lines_cross():
    # Of 100 members chain takes 1 + .1 m and thinned 5 + .05 m milliseconds: alike at 80 members.
    found = _found(chain=lambda rows: 11e-3, thinned=lambda rows: 20e-3 if rows < 32 else 10e-3 / 1.2)
    few = {rows: {"chain": 1.8e-3, "thinned": 4.4e-3} for rows in found if rows >= 32}
    chosen = choice_by_members(ORDER, found, few, members=100, few_members=8)
    assert replace(chosen, few=None, most_few=0) == choice(ORDER, found)
    assert chosen.few == Choice(("chain",))
    saved, lost = 4.4e-3 - 1.8e-3, 11e-3 - 10e-3 / 1.2
    assert chosen.most_few == 8 + int(92 * saved / (saved + lost))


def test_of_several_sizes_the_one_where_the_lines_cross_first_counts():
    found = {64: {"chain": 0.010, "thinned": 0.007}, 128: {"chain": 0.020, "thinned": 0.010}}
    few = {64: {"chain": 0.001, "thinned": 0.003}, 128: {"chain": 0.002, "thinned": 0.005}}
    chosen = choice_by_members(ORDER, found, few, members=108, few_members=8)
    assert chosen.most_few == 8 + int(100 * 0.003 / 0.013)


@pytest.mark.parametrize("few", [{}, {128: {"chain": 0.009, "thinned": 0.005}}])
def test_a_few_members_run_as_all_do_where_nothing_else_is_known_to_be_faster(few):
    found = {64: {"chain": 0.010, "thinned": 0.020}, 128: {"chain": 0.020, "thinned": 0.010}}
    chosen = choice_by_members(ORDER, found, few, members=100, few_members=8)
    assert chosen.strategy(128, 8) == chosen.strategy(128, 100) == "thinned"
    assert chosen.strategy(64, 8) == "chain"


@pytest.mark.parametrize(("chain", "most"), [(0.0052, 8), (0.0048, 100)])
def test_strategies_that_are_about_as_fast_give_a_number_of_members_that_there_is(chain, most):
    # Of all members thinned, which was taken at 64 rows, is not clearly slower at 128; nor is chain for a few.
    found = {64: {"chain": 0.020, "thinned": 0.010}, 128: {"chain": 0.0095, "thinned": 0.010}}
    few = {128: {"chain": chain, "thinned": 0.005}}
    chosen = choice_by_members(ORDER, found, few, members=100, few_members=8)
    assert chosen.few == Choice(("chain",))
    assert chosen.most_few == most
    assert Choice.parse(str(chosen)) == chosen
