"""Captured strategies: on the CPU by running the function again into the same memory, on a GPU as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from dubio.uncertainty.execution import cuda_graph
from dubio.uncertainty.execution.fallback import Fallbacks, Strategy
from tests.uncertainty.chains import NO_CHAINS, THINNABLE, built, strategies_of

K = 6
ALL = slice(0, K)


def rerun(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What a CUDA graph does, on the CPU: the same memory in, the same memory out."""
    logits = function()
    return lambda: logits.copy_(function()), logits


@pytest.fixture(autouse=True)
def _as_in_a_committee() -> Iterator[None]:
    with torch.inference_mode():
        yield


def _strategies(name: str) -> tuple[dict[str, Strategy], Tensor]:
    case = built(*{**THINNABLE, **NO_CHAINS}[name])
    return strategies_of(case, K), case.inputs(40)


@pytest.mark.parametrize("name", ["mlp", "pools", "skip connection", "alpha dropout"])
def test_a_captured_strategy_gives_what_the_strategy_gives(name):
    strategies, x = _strategies(name)
    fallbacks = Fallbacks()
    captured = cuda_graph.capture_all(strategies, x[:1], K, 32, rerun, fallbacks)
    assert captured.keys() == strategies.keys()
    assert captured["loop"] is strategies["loop"]
    assert not fallbacks.dropped
    for each in captured.keys() - {"loop"}:
        assert isinstance(captured[each], cuda_graph.CapturedStrategy)
        for rows in (1, 2, 3, 7, 32, 33, 40):
            torch.testing.assert_close(captured[each](x[:rows], ALL), strategies[each](x[:rows], ALL))
        torch.testing.assert_close(captured[each](x[:3], slice(2, 4)), strategies[each](x[:3], slice(2, 4)))


def test_an_answer_is_not_overwritten_by_the_next():
    strategies, x = _strategies("mlp")
    captured = cuda_graph.CapturedStrategy(strategies["chain"], x[:1], K, 8, rerun)
    first = captured(x[:1], ALL)
    kept = first.clone()
    captured(x[1:2], ALL)
    assert torch.equal(first, kept)


def test_threads_get_their_own_answers():
    strategies, x = _strategies("mlp")
    captured = cuda_graph.CapturedStrategy(strategies["chain"], x[:1], K, 8, rerun)
    expected = [strategies["chain"](row, ALL) for row in x.split(1)]

    def ask(index: int) -> bool:
        row = index % len(x)
        with torch.inference_mode():  # which is a thread's own
            return torch.allclose(captured(x[row : row + 1], ALL), expected[row], atol=1e-5)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(2000)))


@pytest.mark.parametrize(("max_rows", "sizes"), [(5, [1, 2, 4]), (0, [])])
def test_large_work_is_not_captured(max_rows, sizes):
    strategies, x = _strategies("mlp")
    captured: list[int] = []

    def capture(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        captured.append(function().shape[1])
        return rerun(function)

    cuda_graph.CapturedStrategy(strategies["chain"], x[:1], K, max_rows, capture)
    assert captured == sizes


def test_a_strategy_that_cannot_be_captured_or_disagrees_stays_as_it_is_and_the_reason_is_kept():
    strategies, x = _strategies("mlp")

    def refuses(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    def frozen(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        return lambda: None, function()  # answers every batch with what was captured

    for capture, reason in ((refuses, "not permitted when stream is capturing"), (frozen, "Disagreement: its logits")):
        fallbacks = Fallbacks()
        assert cuda_graph.capture_all(strategies, x[:1], K, 8, capture, fallbacks) == strategies
        assert [each.name for each in fallbacks.dropped] == [
            f"{name} as a CUDA graph" for name in ("chain", "thinned", "vmap", "fold")
        ]
        assert all(each.failed and reason in each.reason for each in fallbacks.dropped)
