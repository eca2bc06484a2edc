"""Calls from the event loop: every one is told what came of it, so many at a time, large or small."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dubio.serving.compute.calls import Calls
from dubio.serving.compute.process import ComputeProcess
from dubio.serving.errors import ComputationLost, Stopping

ENGINE = SimpleNamespace(sleep=time.sleep, open=os.open, pid=os.getpid, end=os._exit, add=sum, join=b"".join)


@pytest.fixture(scope="module")
def process() -> Iterator[ComputeProcess]:
    process = ComputeProcess(trials=False)
    process.host(ENGINE, prepare=int)
    yield process
    process.close()


@pytest.fixture
def mortal() -> Iterator[ComputeProcess]:
    """One that a test may end."""
    process = ComputeProcess(trials=False)
    process.host(ENGINE, prepare=int)
    yield process
    process.close()


def call(calls: Calls, method: str, *arguments: Any, begun: Callable[[], None] = lambda: None) -> Awaitable[Any]:
    future = asyncio.get_running_loop().create_future()
    calls.begin(method, *arguments, begun=begun, done=future.set_result)
    return future


def test_answers_and_errors_come_to_whom_they_belong(process: ComputeProcess) -> None:
    async def ask() -> None:
        calls = Calls(process, 3)
        answers = await asyncio.gather(*(call(calls, "add", [number, 1]) for number in range(300)))
        assert answers == list(range(1, 301))
        assert len(calls._lines) == 3
        failed = await call(calls, "add", ["one"])
        assert type(failed) is TypeError
        assert await call(calls, "pid") == process.pid
        calls.close()

    asyncio.run(ask())


@pytest.mark.parametrize("size", [0, 1, 65_536, 40_000_000])
def test_what_is_larger_than_a_socket_holds_comes_whole(process: ComputeProcess, size: int) -> None:
    async def ask() -> None:
        calls = Calls(process, 2)
        parts = [[bytes([number]) * size, b"end"] for number in range(3)]
        for answer, expected in zip(
            await asyncio.gather(*(call(calls, "join", each) for each in parts)), parts, strict=True
        ):
            assert answer == b"".join(expected)
        calls.close()

    asyncio.run(ask())


def test_others_wait_for_their_turn_in_the_order_they_came(process: ComputeProcess, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)  # who opens it waits for somebody at its other end

    async def ask() -> None:
        calls, order = Calls(process, 1), []
        first = call(calls, "open", str(gate), os.O_RDONLY, begun=lambda: order.append("first"))
        others = [call(calls, "pid", begun=lambda number=number: order.append(number)) for number in range(3)]
        assert order == ["first"]
        await asyncio.sleep(0.1)
        assert order == ["first"]
        assert 0.05 < calls.busy_seconds < 60
        os.close(await asyncio.to_thread(os.open, gate, os.O_WRONLY))
        await asyncio.gather(first, *others)
        assert order == ["first", 0, 1, 2]
        assert calls.busy_seconds == 0
        calls.close()

    asyncio.run(ask())


def test_a_call_within_the_answer_to_another_takes_its_line(process: ComputeProcess) -> None:
    async def ask() -> None:
        calls, seen = Calls(process, 1), asyncio.Event()
        answers: list[int] = []

        def again(answer: int) -> None:
            answers.append(answer)
            if answer < 50:
                calls.begin("add", [answer, 1], begun=lambda: None, done=again)
            else:
                seen.set()

        again(0)
        await asyncio.wait_for(seen.wait(), 60)
        assert answers == list(range(51))
        calls.close()

    asyncio.run(ask())


def test_an_error_of_who_is_told_leaves_nobody_waiting(process: ComputeProcess) -> None:
    async def ask() -> None:
        calls, raised = Calls(process, 1), []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: raised.append(context["exception"]))
        calls.begin("pid", begun=lambda: None, done=lambda answer: 1 // 0)
        assert await asyncio.wait_for(call(calls, "add", [1, 2]), 60) == 3
        assert [type(each) for each in raised] == [ZeroDivisionError]
        calls.close()

    asyncio.run(ask())


def test_when_the_process_ends_all_are_told(mortal: ComputeProcess) -> None:
    async def ask() -> None:
        calls = Calls(mortal, 2)
        await call(calls, "pid")
        told = [call(calls, "sleep", 600) for _ in range(5)]
        os.kill(mortal.pid, signal.SIGKILL)
        for answer in await asyncio.wait_for(asyncio.gather(*told), 60):
            assert isinstance(answer, ComputationLost)
            assert answer.why == "The process that computes ended with SIGKILL, as where memory runs out"
        assert isinstance(await call(calls, "pid"), ComputationLost)
        calls.close()

    asyncio.run(ask())


def test_at_the_end_what_runs_is_waited_for_and_all_are_told(process: ComputeProcess) -> None:
    async def ask() -> None:
        calls = Calls(process, 1)
        began = time.monotonic()
        told = [call(calls, "sleep", 0.5), call(calls, "pid")]
        calls.close()
        assert time.monotonic() - began >= 0.5
        told.append(call(calls, "pid"))  # too late
        assert [type(answer) for answer in await asyncio.gather(*told)] == [Stopping, Stopping, Stopping]
        assert calls._lines == []
        calls.close()

    asyncio.run(ask())
