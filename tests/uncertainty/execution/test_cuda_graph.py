"""Recordings: on the CPU by running the function again into the same memory, on a GPU as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from dubio.uncertainty import Committee
from dubio.uncertainty.execution import cuda_graph
from tests.uncertainty.chains import NO_CHAINS, THINNABLE, recorded

K = 6


def rerun(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What a CUDA graph does, on the CPU: the same memory in, the same memory out."""
    logits = function()
    return lambda: logits.copy_(function()), logits


@pytest.fixture(autouse=True)
def _as_in_a_committee() -> Iterator[None]:
    with torch.inference_mode():
        yield


def _ways(name: str) -> tuple[Committee, Tensor]:
    case = {**THINNABLE, **NO_CHAINS}[name]
    x = torch.randn((40, *case[1]), generator=torch.Generator().manual_seed(0))
    return Committee(recorded(*case).network, x[:1], num_samples=K), x


@pytest.mark.parametrize("name", ["mlp", "pools", "skip connection", "alpha dropout"])
def test_a_recorded_way_gives_what_the_way_gives(name):
    committee, x = _ways(name)
    strategies = committee._strategy.strategies
    quick = cuda_graph.recordable(strategies, x[:1], K, 32, rerun)
    assert quick.keys() == strategies.keys()
    assert quick["loop"] is strategies["loop"]
    everybody = slice(0, K)
    for way in quick.keys() - {"loop"}:
        assert isinstance(quick[way], cuda_graph.Replayed)
        for rows in (1, 2, 3, 7, 32, 33, 40):
            torch.testing.assert_close(quick[way](x[:rows], everybody), strategies[way](x[:rows], everybody))
        torch.testing.assert_close(quick[way](x[:3], slice(2, 4)), strategies[way](x[:3], slice(2, 4)))


def test_an_answer_is_not_overwritten_by_the_next():
    committee, x = _ways("mlp")
    quick = cuda_graph.replayed(committee._strategy, x[:1], K, 8, rerun)
    first = quick(x[:1], slice(0, K))
    kept = first.clone()
    quick(x[1:2], slice(0, K))
    assert torch.equal(first, kept)


def test_threads_get_their_own_answers():
    committee, x = _ways("mlp")
    way = committee._strategy.strategies["chain"]
    quick = cuda_graph.replayed(way, x[:1], K, 8, rerun)
    expected = [way(row, slice(0, K)) for row in x.split(1)]

    def ask(index: int) -> bool:
        row = index % len(x)
        with torch.inference_mode():  # which is a thread's own
            return torch.allclose(quick(x[row : row + 1], slice(0, K)), expected[row], atol=1e-5)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(2000)))


def test_large_work_is_not_recorded():
    committee, x = _ways("mlp")
    assert list(cuda_graph.replayed(committee._strategy, x[:1], K, 5, rerun)._recordings) == [1, 2, 4]
    assert not cuda_graph.replayed(committee._strategy, x[:1], K, 0, rerun)._recordings


def test_a_way_that_cannot_be_recorded_or_disagrees_stays_as_it_is():
    committee, x = _ways("mlp")
    strategies = committee._strategy.strategies

    def refuses(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    def frozen(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        return lambda: None, function()  # answers every batch with what was recorded

    for record in (refuses, frozen):
        assert cuda_graph.recordable(strategies, x[:1], K, 8, record) == strategies
