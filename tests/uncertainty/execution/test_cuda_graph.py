"""Captured strategies: on the CPU by running the function again into the same memory, on a GPU as CUDA graphs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from dubio.uncertainty.execution import cuda_graph
from dubio.uncertainty.execution.fallback import Fallbacks, Strategy
from dubio.uncertainty.execution.tolerance import require_agreement
from tests.uncertainty.chains import NO_CHAINS, THINNABLE, built, strategies_of

K = 6
ALL = slice(0, K)


def rerun(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What a CUDA graph does, on the CPU: the same memory in, the same memory out."""
    logits = function()
    return lambda: logits.copy_(function()), logits


WAYS = [
    pytest.param("cpu", lambda: rerun, id="cpu"),
    pytest.param(
        "cuda",
        lambda: cuda_graph.cuda_graphs(torch.device("cuda", torch.cuda.current_device())),
        id="cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    ),
]


@pytest.fixture(autouse=True)
def _as_in_a_committee() -> Iterator[None]:
    with torch.inference_mode():
        yield


def _strategies(name: str, device: str = "cpu") -> tuple[dict[str, Strategy], Tensor]:
    case = built(*{**THINNABLE, **NO_CHAINS}[name], device=device)
    return strategies_of(case, K), case.inputs(40)


def _memory(x: Tensor) -> cuda_graph.SharedMemory:
    return cuda_graph.SharedMemory(x.device)


@pytest.mark.parametrize(("device", "capture"), WAYS)
@pytest.mark.parametrize("name", ["mlp", "pools", "skip connection", "alpha dropout"])
def test_a_captured_strategy_gives_what_the_strategy_gives(name, device, capture):
    strategies, x = _strategies(name, device)
    fallbacks = Fallbacks()
    captured = cuda_graph.capture_all(strategies, x[:1], K, 32, capture(), fallbacks)
    assert captured.keys() == strategies.keys()
    assert captured["loop"] is strategies["loop"]
    assert not fallbacks.dropped
    for each in captured.keys() - {"loop"}:
        assert isinstance(captured[each], cuda_graph.CapturedStrategy)
        for rows in (1, 2, 3, 7, 32, 33, 40):
            require_agreement(captured[each](x[:rows], ALL), strategies[each](x[:rows], ALL))
        require_agreement(captured[each](x[:3], slice(2, 4)), strategies[each](x[:3], slice(2, 4)))


@pytest.mark.parametrize(("device", "capture"), WAYS)
def test_an_answer_is_not_overwritten_by_the_next(device, capture):
    strategies, x = _strategies("mlp", device)
    captured = cuda_graph.CapturedStrategy(strategies["chain"], x[:1], K, 8, capture(), _memory(x))
    first = captured(x[:1], ALL)
    kept = first.clone()
    captured(x[1:2], ALL)
    assert torch.equal(first, kept)


@pytest.mark.parametrize(("device", "capture"), WAYS)
def test_threads_get_their_own_answers(device, capture):
    strategies, x = _strategies("mlp", device)
    captured = cuda_graph.CapturedStrategy(strategies["chain"], x[:1], K, 8, capture(), _memory(x))
    expected = [strategies["chain"](row, ALL) for row in x.split(1)]

    def ask(index: int) -> bool:
        row = index % len(x)
        with torch.inference_mode():  # which is a thread's own
            return torch.allclose(captured(x[row : row + 1], ALL), expected[row], atol=1e-5)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(2000)))


@pytest.mark.parametrize(("device", "capture"), WAYS)
def test_threads_that_ask_for_batches_of_several_sizes_get_their_own_answers(device, capture):
    strategies, x = _strategies("mlp", device)
    captured = cuda_graph.capture_all(strategies, x[:1], K, 32, capture(), Fallbacks())
    names = sorted(captured.keys() - {"loop"})
    expected = strategies["chain"](x, ALL)

    def ask(index: int) -> None:
        first, rows = index % 20, (1, 2, 5, 16, 20)[index % 5]
        with torch.inference_mode():
            answer = captured[names[index % len(names)]](x[first : first + rows], ALL)
            require_agreement(answer, expected[:, first : first + rows])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(2000)))


@pytest.mark.parametrize(("max_rows", "sizes"), [(5, [1, 2, 4]), (0, [])])
def test_large_work_is_not_captured(max_rows, sizes):
    strategies, x = _strategies("mlp")
    captured: list[int] = []

    def capture(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        captured.append(function().shape[1])
        return rerun(function)

    cuda_graph.CapturedStrategy(strategies["chain"], x[:1], K, max_rows, capture, _memory(x))
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


def test_a_graph_of_one_size_that_launches_nothing_is_seen_even_where_logits_do_not_vary():
    # All rows have the same logits, so that a stale answer is a right one.
    strategies = {"chain": lambda x, members: torch.ones(K, len(x), 3) + 0 * x[:, :1]}
    x = torch.randn(1, 12)

    def frozen_at_8(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        logits = function()
        return (lambda: None, logits) if logits.shape[1] == 8 else rerun(function)

    for max_rows, names in ((4, []), (8, ["chain as a CUDA graph"])):
        fallbacks = Fallbacks()
        cuda_graph.capture_all(strategies, x, K, max_rows, frozen_at_8, fallbacks)
        assert [each.name for each in fallbacks.dropped] == names


@pytest.mark.parametrize("replays", [True, False])
@pytest.mark.parametrize(("device", "capture"), WAYS)
def test_a_few_members_come_out_of_the_graph_of_all_where_that_takes_less(device, capture, replays, monkeypatch):
    monkeypatch.setattr(cuda_graph, "FEW", 3)
    strategies, x = _strategies("mlp", device)
    asked: list[slice] = []

    def strategy(rows: Tensor, members: slice) -> Tensor:
        asked.append(members)
        time.sleep(0.02 if (members != ALL) is replays else 0)
        return strategies["chain"](rows, members)

    def slower(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        launch, logits = capture()(function)
        return lambda: (time.sleep(0 if replays else 0.02), launch())[1], logits

    captured = cuda_graph.CapturedStrategy(strategy, x[:1], K, 4, slower, _memory(x))
    asked.clear()
    require_agreement(captured(x[:3], slice(2, 5)), strategies["chain"](x[:3], slice(2, 5)))
    assert (slice(2, 5) in asked) is not replays


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_callers_on_several_streams_get_their_own_answers():
    strategies, x = _strategies("mlp", "cuda")
    capture = cuda_graph.cuda_graphs(torch.device("cuda", torch.cuda.current_device()))
    captured = cuda_graph.CapturedStrategy(strategies["chain"], x[:1], K, 8, capture, _memory(x))
    expected = strategies["chain"](x, ALL)
    torch.cuda.synchronize()

    def ask(first: int) -> None:
        stream = torch.cuda.Stream()
        with torch.inference_mode(), torch.cuda.stream(stream):
            for turn in range(200):
                row = (first + turn) % len(x)
                answer = captured(x[row : row + 1], ALL)
                stream.synchronize()
                require_agreement(answer, expected[:, row : row + 1])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(0, 40, 10)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_capture_that_fails_leaves_the_thread_on_its_stream():
    before = torch.cuda.current_stream()
    x = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError):
        cuda_graph.cuda_graphs(x.device)(lambda: x * float(x.sum()))  # waits for the GPU
    assert torch.cuda.current_stream() == before
