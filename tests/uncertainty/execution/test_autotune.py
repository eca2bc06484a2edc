"""The autotuner: a choice that noise cannot turn, and that can be made by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from dubio.uncertainty import Committee
from dubio.uncertainty.errors import UnsupportedNetwork
from dubio.uncertainty.execution.autotune import BATCHES, IN_A_ROW, Autotuner, autotune
from dubio.uncertainty.execution.choice import NAMES, Choice
from dubio.uncertainty.execution.decision import MIN_SAVED, MIN_SPEEDUP
from dubio.uncertainty.execution.fallback import Strategy
from dubio.uncertainty.execution.timing import Clocks
from tests.uncertainty.chains import NO_CHAINS, THINNABLE, built, strategies_of

ROW = torch.zeros(1, 3)


class Timed:
    """Strategies that take a given time by a clock of their own, whatever else the machine does."""

    def __init__(
        self, seconds: Mapping[str, float], a_row: Mapping[str, float] | None = None, members: int = 4
    ) -> None:
        self.now, self.members = 0.0, members
        self.calls: list[tuple[str, int]] = []
        self.strategies = {
            name: self._strategy(name, each, (a_row or {}).get(name, 0)) for name, each in seconds.items()
        }

    def _strategy(self, name: str, seconds: float, a_row: float) -> Strategy:
        def run(x: Tensor, members: slice) -> Tensor:
            self.calls.append((name, len(x)))
            self.now += seconds + a_row * len(x) * (members.stop - members.start) / self.members
            return x.new_zeros(members.stop - members.start, len(x), 2)

        return run

    def choose(self, seconds: float = 2.0) -> Autotuner:
        clocks = Clocks(lambda: self.now, lambda: self.now)
        return autotune(self.strategies, ROW, self.members, None, seconds, clocks=clocks)

    def sizes(self, name: str) -> set[int]:
        """Of the batches that a strategy ran."""
        return {rows for each, rows in self.calls if each == name}


def test_a_clearly_faster_strategy_is_taken():
    assert Timed({"vmap": 0.02, "fold": 0.002, "loop": 0.0}).choose().choice == Choice(("fold",))


@pytest.mark.parametrize(("factor", "taken"), [(0.99, "vmap"), (1.01, "fold")])
def test_another_must_be_faster_by_the_stated_factor(factor, taken):
    timed = Timed({"vmap": 0.01 * MIN_SPEEDUP * factor, "fold": 0.01})
    assert timed.choose().choice == Choice((taken,))


@pytest.mark.parametrize(("factor", "taken"), [(0.99, "vmap"), (1.01, "fold")])
def test_another_must_save_the_stated_time(factor, taken):
    timed = Timed({"vmap": 1e-5 + MIN_SAVED * factor, "fold": 1e-5})
    assert timed.choose().choice == Choice((taken,))


def test_each_size_is_measured_and_so_is_the_one_behind_16_and_64():
    # 1 ms and 0.1 ms a row against 5 ms: the one that costs more a row is clearly slower from 48 rows on.
    timed = Timed({"vmap": 0.001, "fold": 0.005}, {"vmap": 0.0001})
    chosen = timed.choose(20.0)
    assert [each.rows for each in chosen.measured if each.name == "vmap"] == [1, 2, 4, 8, 16, 17, 32]
    assert str(chosen) == "vmap up to 47 rows, fold"
    assert timed.sizes("vmap") == timed.sizes("fold") == set(BATCHES)
    assert {16, 17, 64, 65} <= set(BATCHES)


def test_a_cliff_at_a_size_is_seen_there_and_a_choice_is_kept_until_another_is_clearly_faster():
    timed = Timed({"chain": 0.001, "thinned": 0.0005})
    steady = timed.strategies["thinned"]

    def falls(x: Tensor, members: slice) -> Tensor:
        timed.now += 0.1 if len(x) in {17, 65} else 0
        return steady(x, members)

    timed.strategies["thinned"] = falls
    chosen = timed.choose(20.0)
    assert [each.name for each in chosen.measured if each.rows in {16, 17}] == ["thinned", "chain"]
    assert chosen.choice[17] == chosen.choice[65] == "chain"


def test_what_is_far_behind_leaves_the_race_so_that_time_is_left_for_the_others():
    # 250 ms against 5 and 6: a race of all three at all ten sizes would take over 5 seconds.
    timed = Timed({"vmap": 0.25, "fold": 0.006, "traced": 0.005}, {"fold": 0.0001, "traced": 0.0002})
    chosen = timed.choose(3.0)
    assert timed.sizes("vmap") == {1, 4}
    assert timed.sizes("fold") == set(BATCHES)
    assert chosen.choice[1] == "traced"
    assert chosen.choice[128] == "fold"
    assert all("not measured" not in each.reason for each in chosen.measured)


def test_what_is_behind_leaves_where_there_is_no_time_for_all():
    timed = Timed({"vmap": 0.0, "fold": 0.0}, {"vmap": 0.01, "fold": 0.001})
    timed.strategies["traced"] = timed.strategies["fold"]
    chosen = timed.choose(0.8)
    assert 1 in timed.sizes("vmap")
    assert timed.sizes("vmap") < timed.sizes("fold")
    assert chosen.choice[8] == "fold"


def test_what_is_behind_with_many_rows_and_does_not_catch_up_leaves():
    timed = Timed({"vmap": 0.0, "fold": 0.0, "traced": 0.0}, {"vmap": 0.0005, "fold": 0.0001, "traced": 0.0001})
    timed.choose(60.0)
    assert timed.sizes("vmap") == {1, 4, 16}


def test_what_is_behind_but_catches_up_stays_in_the_race():
    # With few rows the second takes twenty times as long; with many a tenth of the time.
    timed = Timed({"chain": 0.0, "thinned": 0.02}, {"chain": 0.001, "thinned": 0.0001})
    chosen = timed.choose(20.0)
    # A row more, and .001 * rows is 1.15 times .02 + .0001 * rows.
    assert str(chosen) == "chain up to 25 rows, thinned"


def test_a_few_members_are_run_by_what_is_fastest_for_them():
    # The second takes 20 ms however few members it is asked, and less for all of them.
    timed = Timed({"chain": 0.0, "thinned": 0.02}, {"chain": 0.001, "thinned": 0.0001}, members=100)
    chosen = timed.choose(20.0)
    assert str(chosen).startswith("chain up to 25 rows, thinned (up to ")
    assert str(chosen).endswith(" members: chain)")
    timed.calls.clear()
    for members in (8, 100):
        chosen(torch.zeros(32, 3), slice(0, members))
    chosen(torch.zeros(32, 3), slice(8, 16))
    assert timed.calls == [("chain", 32), ("thinned", 32), ("chain", 32)]
    assert set(chosen.few) == {32, 64, 65, 128}
    # At 128 rows, where the lines cross first: .128 m / 100 seconds, and .02 + .0128 m / 100, which all were not asked.
    assert chosen.choice.most_few == pytest.approx((0.02 + 0.000128 * 8) / 0.00128, abs=1)


def test_nothing_more_is_measured_where_few_members_change_nothing():
    small = Timed({"chain": 0.0, "thinned": 0.02}, {"chain": 0.001, "thinned": 0.0001}, members=15)
    assert small.choose(20.0).choice.few is None
    same = Timed({"chain": 0.001, "thinned": 0.002}, members=100)
    assert not same.choose(20.0).few


def test_where_the_time_is_up_few_members_run_as_all_do():
    timed = Timed({"chain": 0.03, "thinned": 0.02}, members=100)
    chosen = timed.choose(0.7)
    assert chosen.choice.few is None
    assert timed.now <= 0.7 + 0.03


def test_where_calls_take_long_few_sizes_are_measured_so_that_larger_ones_are_reached():
    timed = Timed({"vmap": 0.05, "fold": 0.06}, {"vmap": 0.002, "fold": 0.001})
    timed.choose(100.0)
    assert timed.sizes("fold") == {1, 4, 16, 64}


def test_the_last_in_the_race_is_not_measured_further():
    timed = Timed({"vmap": 0.5, "fold": 0.001})
    chosen = timed.choose(20.0)
    assert {rows for _, rows in timed.calls} == {1, 4}
    assert chosen.measured[-1].reason == "the others were far behind"


def test_a_size_that_is_not_measured_keeps_the_last_measured_winner():
    # From 2 rows on fold wins; what the larger sizes would take is not there.
    timed = Timed({"vmap": 0.0, "fold": 0.005}, {"vmap": 0.01, "fold": 0.004})
    chosen = timed.choose(0.9)
    skipped = [each for each in chosen.measured if not each.seconds]
    assert skipped
    assert {each.name for each in skipped} == {"fold"}
    assert all("not measured" in each.reason for each in skipped)
    assert str(chosen) == "vmap up to 1 row, fold"


def test_the_loop_is_for_what_nothing_else_can_run():
    timed = Timed({"fold": 0.001, "loop": 0.0})
    assert timed.choose().choice == Choice(("fold",))
    alone = Timed({"loop": 0.0})
    assert str(alone.choose()) == "loop"
    assert not timed.calls  # nothing to measure
    assert not alone.calls


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.3, 2.0])
def test_no_call_is_begun_when_the_time_is_up(seconds):
    timed = Timed({"vmap": 0.01, "fold": 0.012}, {"vmap": 0.002, "fold": 0.002})
    chosen = timed.choose(seconds)
    assert timed.now <= seconds + 0.012 + 0.002 * max((rows for _, rows in timed.calls), default=0)
    if not seconds:
        assert not timed.calls
        assert chosen.choice == Choice(("vmap",))


def test_a_size_at_which_calls_take_longer_than_foretold_is_left_unfinished():
    timed = Timed({"vmap": 0.01, "fold": 0.001})
    steady = timed.strategies["vmap"]

    def falls(x: Tensor, members: slice) -> Tensor:
        timed.now += 10.0 if len(x) == 4 else 0
        return steady(x, members)

    timed.strategies["vmap"] = falls
    chosen = timed.choose(2.0)
    assert [name for name, rows in timed.calls if rows == 4] == ["vmap"]
    assert timed.now < 2.0 + 10.0 + 0.01
    assert [each.reason for each in chosen.measured if each.rows == 4] == [
        "not measured to the end, as the time was up"
    ]
    assert chosen.choice == Choice(("fold",))  # as at the sizes before


def test_what_disturbs_a_size_once_changes_nothing():
    timed = Timed({"vmap": 0.001, "fold": 0.0015})
    steady, calls = timed.strategies["vmap"], list[int]()

    def disturbed(x: Tensor, members: slice) -> Tensor:
        calls.append(len(x))
        timed.now += 0.005 if len(x) in {16, 17, 32} and calls.count(len(x)) <= 1 + IN_A_ROW else 0
        return steady(x, members)

    timed.strategies["vmap"] = disturbed
    assert timed.choose(20.0).choice == Choice(("vmap",))
    assert calls.count(16) > 1 + IN_A_ROW


def test_one_call_that_something_holds_up_is_not_taken_for_a_long_one():
    timed = Timed({"vmap": 0.001, "fold": 0.01})
    steady, calls = timed.strategies["vmap"], list[int]()

    def held_up(x: Tensor, members: slice) -> Tensor:
        calls.append(len(x))
        timed.now += 1.5 if calls == [1, 1] else 0  # of the two seconds that there are
        return steady(x, members)

    timed.strategies["vmap"] = held_up
    assert timed.choose().choice == Choice(("vmap",))
    assert calls[: 1 + IN_A_ROW] == [1] * (1 + IN_A_ROW)


def test_the_first_run_which_warms_up_does_not_count():
    timed = Timed({"vmap": 0.001, "fold": 0.002})
    cold, steady = set(), timed.strategies["vmap"]

    def slow_at_first(x: Tensor, members: slice) -> Tensor:
        timed.now += 0 if len(x) in cold else 0.01
        cold.add(len(x))
        return steady(x, members)

    timed.strategies["vmap"] = slow_at_first
    assert timed.choose(20.0).choice == Choice(("vmap",))


def test_each_batch_takes_its_own_strategy():
    timed = Timed({"chain": 0, "thinned": 0})
    chosen = autotune(timed.strategies, ROW, 4, "chain up to 4 rows, thinned up to 16 rows, chain")
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
    with pytest.raises(UnsupportedNetwork, match=r"`strategy`: expected one of chain, .*'fastest'\.$"):
        Committee(network, torch.randn(1, 12), num_samples=4, strategy="fastest")


@pytest.mark.parametrize(
    "strategy",
    [
        "thinned",
        "chain up to 1 row, thinned",
        "loop up to 2 rows, vmap up to 7 rows, fold",
        "thinned (up to 2 members: chain)",
    ],
)
def test_what_a_committee_says_can_be_pinned(strategy):
    network = built(*THINNABLE["mlp"]).network
    committee = Committee(network, torch.randn(1, 12), num_samples=4, strategy=strategy)
    assert committee.strategy == strategy
    assert set(committee.audit().autotuner.strategies) == set(NAMES) & set(re.findall(r"\w+", strategy))
    found = Committee(network, torch.randn(1, 12), num_samples=4, measure_seconds=0.1).strategy
    assert Committee(network, torch.randn(1, 12), num_samples=4, strategy=found).strategy == found


def test_the_names_are_those_of_the_strategies_that_there_are():
    chain, other = (strategies_of(built(*case)) for case in (THINNABLE["mlp"], NO_CHAINS["skip connection"]))
    assert {*chain, *other} == set(NAMES) - {"packed"}  # for texts alone
