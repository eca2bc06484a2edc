"""The autotuner: a choice that noise cannot turn, and that can be made by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from dubio.uncertainty import Committee
from dubio.uncertainty.errors import UnsupportedNetwork
from dubio.uncertainty.execution.autotune import BATCHES, MIN_SAVED, MIN_SPEEDUP, NAMES, Autotuner, autotune
from dubio.uncertainty.execution.fallback import Strategy
from tests.uncertainty.chains import NO_CHAINS, THINNABLE, built, strategies_of

ROW = torch.zeros(1, 3)


class Timed:
    """Strategies that take a given time by a clock of their own, whatever else the machine does."""

    def __init__(self, seconds: Mapping[str, float], a_row: Mapping[str, float] | None = None) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, int]] = []
        self.strategies = {
            name: self._strategy(name, each, (a_row or {}).get(name, 0)) for name, each in seconds.items()
        }

    def _strategy(self, name: str, seconds: float, a_row: float) -> Strategy:
        def run(x: Tensor, members: slice) -> Tensor:
            self.calls.append((name, len(x)))
            self.now += seconds + a_row * len(x)
            return x.new_zeros(members.stop - members.start, len(x), 2)

        return run

    def choose(self, seconds: float = 2.0, thinned_from: int = 1) -> Autotuner:
        return autotune(self.strategies, ROW, 4, None, seconds, thinned_from, clock=lambda: self.now)


def test_a_clearly_faster_strategy_is_taken():
    assert Timed({"vmap": 0.02, "fold": 0.002, "loop": 0.0}).choose().names == ("fold",) * len(BATCHES)


@pytest.mark.parametrize(("factor", "taken"), [(0.99, "vmap"), (1.01, "fold")])
def test_another_must_be_faster_by_the_stated_factor(factor, taken):
    timed = Timed({"vmap": 0.01 * MIN_SPEEDUP * factor, "fold": 0.01})
    assert timed.choose().names == (taken,) * len(BATCHES)


@pytest.mark.parametrize(("factor", "taken"), [(0.99, "vmap"), (1.01, "fold")])
def test_another_must_save_the_stated_time(factor, taken):
    timed = Timed({"vmap": 1e-5 + MIN_SAVED * factor, "fold": 1e-5})
    assert timed.choose().names == (taken,) * len(BATCHES)


def test_the_rule_for_thinned_holds_where_little_is_saved():
    chosen = Timed({"chain": 0.00005, "thinned": 0.0}).choose(thinned_from=17)
    assert chosen.names == ("chain", "chain", "chain", "thinned")
    assert str(chosen) == "chain up to 16 rows, thinned"


def test_each_size_is_measured():
    # 1 ms and 0.1 ms a row against 2 ms: the one that costs more a row is slower from ten rows on.
    timed = Timed({"vmap": 0.001, "fold": 0.002}, {"vmap": 0.0001})
    assert timed.choose(20.0).names == ("vmap", "vmap", "fold", "fold")
    assert {rows for _, rows in timed.calls} == set(BATCHES)


def test_the_loop_is_for_what_nothing_else_can_run():
    timed = Timed({"fold": 0.001, "loop": 0.0})
    assert timed.choose().names == ("fold",) * len(BATCHES)
    alone = Timed({"loop": 0.0})
    assert str(alone.choose()) == "loop"
    assert not timed.calls  # nothing to measure
    assert not alone.calls


def test_sizes_that_would_take_too_long_are_not_measured():
    timed = Timed({"vmap": 0.05, "fold": 0.01})
    assert timed.choose(0.3).names == ("fold",) * len(BATCHES)
    assert {rows for _, rows in timed.calls} == {1}
    timed = Timed({"vmap": 0.05, "fold": 0.01})
    assert timed.choose(0.0).names == ("vmap",) * len(BATCHES)
    assert not timed.calls


def test_the_first_run_which_warms_up_does_not_count():
    timed = Timed({"vmap": 0.001, "fold": 0.002})
    cold, steady = set(), timed.strategies["vmap"]

    def slow_at_first(x: Tensor, members: slice) -> Tensor:
        timed.now += 0 if len(x) in cold else 0.01
        cold.add(len(x))
        return steady(x, members)

    timed.strategies["vmap"] = slow_at_first
    assert timed.choose(20.0).names == ("vmap",) * len(BATCHES)


def test_each_batch_takes_its_own_strategy():
    timed = Timed({"chain": 0, "thinned": 0})
    chosen = Autotuner(("chain", "chain", "thinned", "chain"), timed.strategies)
    for rows in (1, 4, 5, 16, 17, 64, 65, 1000):
        chosen(torch.zeros(rows, 3), slice(0, 2))
    assert [name for name, _ in timed.calls] == ["chain"] * 2 + ["thinned"] * 2 + ["chain"] * 4
    assert str(chosen) == "chain up to 4 rows, thinned up to 16 rows, chain"


def test_a_strategy_that_there_is_not_is_refused():
    network = built(*NO_CHAINS["skip connection"]).network
    with pytest.raises(
        UnsupportedNetwork, match=r"`strategy`.*'traced', 'vmap', 'fold', 'loop'.*'thinned', which does"
    ):
        Committee(network, torch.randn(1, 12), num_samples=4, strategy="thinned")
    with pytest.raises(UnsupportedNetwork, match=r"but got 'fastest'\.$"):
        Committee(network, torch.randn(1, 12), num_samples=4, strategy="fastest")


def test_the_names_are_those_of_the_strategies_that_there_are():
    chain, other = (strategies_of(built(*case)) for case in (THINNABLE["mlp"], NO_CHAINS["skip connection"]))
    assert {*chain, *other} == set(NAMES)
