from __future__ import annotations

import asyncio
import os
import threading

import pytest
import torch

from dubio.serving.executor import Executor, offload_if


@pytest.fixture
def executor() -> Executor:
    return Executor(threads=1, torch_threads=1)


def test_results_and_errors_come_back(executor: Executor) -> None:
    def fail() -> None:
        raise KeyError("mine")

    async def both() -> int:
        with pytest.raises(KeyError, match="mine"):
            await executor.run(fail)
        return await executor.run(lambda: 7)

    assert asyncio.run(both()) == 7
    executor.close()


def test_the_loop_runs_on_while_work_blocks(executor: Executor) -> None:
    async def unblock() -> bool:
        gate = threading.Event()
        blocked = asyncio.ensure_future(executor.run(lambda: gate.wait(30)))
        await asyncio.sleep(0)
        gate.set()  # only a running loop gets here
        return await blocked

    assert asyncio.run(unblock())
    executor.close()


def test_torch_threads_are_set(executor: Executor) -> None:
    assert torch.get_num_threads() == 1
    executor.close()


def test_torch_gets_the_processors_of_this_process_unless_told_otherwise() -> None:
    before = torch.get_num_threads()
    Executor(threads=2, torch_threads=None).close()
    given = torch.get_num_threads()
    torch.set_num_threads(before)
    assert given == len(os.sched_getaffinity(0))


def test_long_work_leaves_the_loops_thread_and_short_work_does_not() -> None:
    here = threading.get_ident()
    assert asyncio.run(offload_if(False, threading.get_ident)) == here
    assert asyncio.run(offload_if(True, threading.get_ident)) != here
