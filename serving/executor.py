"""Runs predictions in a few threads of their own, so that the event loop keeps answering."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


class Executor:
    """A small thread pool for torch work.

    Args:
        threads: How many predictions run at once, at most.
        torch_threads: How many threads each takes inside torch; None for one a processor.
    """

    def __init__(self, *, threads: int, torch_threads: int | None) -> None:
        # Left to itself torch would count the machine's processors, not those that this process may use.
        torch.set_num_threads(torch_threads or len(os.sched_getaffinity(0)))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="dubio-predict")

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """`work()`, off the event loop; the future belongs to the loop that is running."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def run(self, work: Callable[[], T]) -> T:
        """`work()`, off the event loop; what it raises is raised here."""
        return await self.submit(work)

    def close(self) -> None:
        """Wait for what is running, drop what has not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)


async def offload_if(long: bool, work: Callable[[], T]) -> T:
    """`work()`, in a thread if it is long: a thread costs more than a millisecond's work is worth."""
    return await asyncio.to_thread(work) if long else work()
