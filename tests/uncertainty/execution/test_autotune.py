"""The strategy: a choice that noise cannot turn, and that can be made by hand."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from dubio.uncertainty import Committee
from dubio.uncertainty.errors import UnsupportedNetwork
from dubio.uncertainty.execution import autotune
from dubio.uncertainty.execution.autotune import BATCHES, Autotuner, choose
from dubio.uncertainty.execution.strategies import Strategy
from tests.uncertainty.chains import NO_CHAINS, recorded

ROW = torch.zeros(1, 3)


def _way(name: str, seconds: float, calls: list[tuple[str, int]]) -> Strategy:
    def run(x: Tensor, which: slice) -> Tensor:
        calls.append((name, len(x)))
        time.sleep(seconds)
        return x.new_zeros(which.stop - which.start, len(x), 2)

    return run


def _ways(seconds: dict[str, float]) -> tuple[dict[str, Strategy], list[tuple[str, int]]]:
    calls: list[tuple[str, int]] = []
    return {name: _way(name, each, calls) for name, each in seconds.items()}, calls


def test_a_clearly_faster_way_is_taken():
    found, _ = _ways({"vmap": 0.02, "fold": 0.002, "loop": 0.0})
    assert choose(found, ROW, 4, None, 2.0).names == ("fold",) * len(BATCHES)


def test_the_preferred_way_stays_where_another_is_hardly_faster():
    found, _ = _ways({"vmap": 0.0101, "fold": 0.01, "loop": 0.0})
    assert choose(found, ROW, 4, None, 2.0).names == ("vmap",) * len(BATCHES)


def test_the_preferred_way_stays_where_little_is_saved():
    found, _ = _ways({"chain": 0.00005, "thinned": 0.0})
    chosen = choose(found, ROW, 4, None, 2.0, thinned_from=17)
    assert chosen.names == ("chain", "chain", "chain", "thinned")
    assert str(chosen) == "chain up to 16 rows, thinned"


def test_the_loop_is_for_what_nothing_else_can_run():
    found, calls = _ways({"fold": 0.001, "loop": 0.0})
    assert choose(found, ROW, 4, None, 2.0).names == ("fold",) * len(BATCHES)
    assert str(choose({"loop": found["loop"]}, ROW, 4, None, 2.0)) == "loop"
    assert not calls  # nothing to measure


def test_sizes_that_would_take_too_long_are_not_measured():
    found, calls = _ways({"vmap": 0.05, "fold": 0.01})
    assert choose(found, ROW, 4, None, 0.3).names == ("fold",) * len(BATCHES)
    assert {rows for _, rows in calls} == {1}
    calls.clear()
    assert choose(found, ROW, 4, None, 0.0).names == ("vmap",) * len(BATCHES)
    assert not calls


def test_each_batch_takes_its_own_way():
    found, calls = _ways({"chain": 0, "thinned": 0})
    chosen = Autotuner(("chain", "chain", "thinned", "chain"), found)
    for rows in (1, 4, 5, 16, 17, 64, 65, 1000):
        chosen(torch.zeros(rows, 3), slice(0, 2))
    assert [name for name, _ in calls] == ["chain"] * 2 + ["thinned"] * 2 + ["chain"] * 4
    assert str(chosen) == "chain up to 4 rows, thinned up to 16 rows, chain"


def test_a_way_that_there_is_not_is_refused():
    network = recorded(*NO_CHAINS["skip connection"]).network
    with pytest.raises(UnsupportedNetwork, match=r"`strategy`.*'traced', 'vmap', 'fold', 'loop'.*'thinned'"):
        Committee(network, torch.randn(1, 12), num_samples=4, strategy="thinned")


def test_every_way_has_a_name_that_is_told():
    assert set(autotune.NAMES) == {"chain", "thinned", "traced", "vmap", "fold", "loop"}
