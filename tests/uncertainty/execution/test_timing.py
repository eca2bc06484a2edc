"""Clocks that other work does not disturb, and a budget of time that its parts share."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from dubio.uncertainty.execution import timing
from dubio.uncertainty.execution.timing import Clocks, TimeBudget, least_seconds


@pytest.mark.skipif(sys.platform == "win32", reason="a thread's time comes in steps of 16 ms")
def test_with_one_torch_thread_a_call_costs_its_own_work():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        clocks = Clocks.of(torch.device("cpu"))
        start, wall = clocks.cost(), clocks.wall()
        other = threading.Thread(target=sum, args=(range(10**6),))
        other.start()
        other.join()
        time.sleep(0.05)
        assert clocks.wall() - wall >= 0.05
        assert clocks.cost() - start < clocks.wall() - wall
        torch.set_num_threads(2)
        assert Clocks.of(torch.device("cpu")).cost is time.perf_counter
    finally:
        torch.set_num_threads(threads)


def test_a_gpus_work_is_not_the_threads():
    assert Clocks.of(torch.device("cuda")).cost is time.perf_counter


def test_a_part_leaves_what_it_does_not_need():
    now = iter([1.0, 1.5, 7.0, 9.0])
    budget = TimeBudget(2.0, lambda: next(now))
    with budget:
        assert budget.left == 2.0
    assert budget.left == 1.5
    with budget:
        pass
    assert budget.left == 0.0


def test_the_least_of_several_turns_counts_and_the_first_does_not(monkeypatch):
    now, naps = [0.0], iter([0.0, 3.0, 1.0, 2.0])

    def nap() -> None:
        now[0] += next(naps)

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert least_seconds(nap, torch.device("cpu")) == 1.0
    assert next(naps, None) is None
