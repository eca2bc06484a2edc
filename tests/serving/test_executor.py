"""The threads that predictions run in."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest
import torch

from dubio.serving.compute.process import ComputeProcess
from dubio.serving.executor import Executor


@pytest.fixture
def one_thread() -> Executor:
    return Executor(threads=1, torch_threads=1)


def test_results_and_errors_come_back(one_thread: Executor) -> None:
    def fail() -> None:
        raise KeyError("mine")

    async def both() -> int:
        with pytest.raises(KeyError, match="mine"):
            await one_thread.submit(fail)
        return await one_thread.submit(lambda: 7)

    assert asyncio.run(both()) == 7
    one_thread.close()


def test_the_loop_runs_on_while_work_blocks(one_thread: Executor) -> None:
    async def unblock() -> bool:
        gate = threading.Event()
        blocked = asyncio.ensure_future(one_thread.submit(lambda: gate.wait(30)))
        await asyncio.sleep(0)
        gate.set()  # only a running loop gets here
        return await blocked

    assert asyncio.run(unblock())
    one_thread.close()


def test_what_waits_for_a_thread_is_not_busy(one_thread: Executor) -> None:
    async def wait() -> None:
        gate, begun = threading.Event(), threading.Event()
        first = one_thread.submit(lambda: begun.set() or gate.wait(30))
        second = one_thread.submit(lambda: one_thread.busy_seconds)
        assert begun.wait(30)
        await asyncio.sleep(0.2)
        assert one_thread.busy_seconds >= 0.2
        gate.set()
        assert await first
        assert await second < 0.2

    asyncio.run(wait())
    one_thread.close()


def test_it_is_lost_with_its_process_or_by_what_an_answer_told() -> None:
    process = ComputeProcess(trials=False)
    executor = Executor(threads=1, torch_threads=1, process=process)
    assert executor.lost is None
    os.kill(process.pid, signal.SIGKILL)
    until = time.monotonic() + 30
    while executor.lost is None:
        assert time.monotonic() < until
    assert executor.lost == "The process that computes ended with SIGKILL, as where memory runs out"
    executor.failure = "The device of this process failed"
    assert executor.lost == "The device of this process failed"
    process.close()
    executor.close()


def test_torch_threads_are_set(one_thread: Executor) -> None:
    assert torch.get_num_threads() == 1
    one_thread.close()


def test_torch_gets_the_processors_of_this_process_unless_told_otherwise() -> None:
    before = torch.get_num_threads()
    Executor(threads=2, torch_threads=None).close()
    given = torch.get_num_threads()
    torch.set_num_threads(before)
    assert given == len(os.sched_getaffinity(0))
