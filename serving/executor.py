"""The executor: the threads in which predictions are computed, or waited for, off the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from dubio.serving.compute.calls import Calls
from dubio.serving.compute.process import ComputeProcess
from dubio.serving.settings import available_processors

T = TypeVar("T")


class Executor:
    """A small thread pool for torch work.

    Args:
        threads: How many predictions run at once, at most.
        torch_threads: How many threads each takes inside torch; None for one a processor.
        process: That computes, if this one does not.

    Attributes:
        calls: To that process, from the event loop; None if this process computes.
        failure: Why no more can be computed, as far as an answer told; None while it can.
    """

    def __init__(self, *, threads: int, torch_threads: int | None, process: ComputeProcess | None = None) -> None:
        # Left to itself torch would count the machine's processors, not those that this process may use.
        torch.set_num_threads(torch_threads or available_processors())
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="dubio-predict")
        self._begun = dict[int, float]()  # by thread
        self._process = process
        self.calls = None if process is None else Calls(process, threads)
        self.failure: str | None = None

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """`work()`, off the event loop; the future belongs to the loop that is running."""
        return asyncio.wrap_future(self._pool.submit(self._run, work))

    @property
    def lost(self) -> str | None:
        """Why no more can be computed by this process; None while it can."""
        return self.failure or (None if self._process is None else self._process.lost)

    @property
    def busy_seconds(self) -> float:
        """How long what is computed longest has taken so far; what waits for a thread does not count."""
        now = time.monotonic()
        called = 0.0 if self.calls is None else self.calls.busy_seconds
        return max(called, now - min(list(self._begun.values()), default=now))

    def _run(self, work: Callable[[], T]) -> T:
        thread = threading.get_ident()
        self._begun[thread] = time.monotonic()
        try:
            return work()
        finally:
            del self._begun[thread]

    def close(self) -> None:
        """Wait for what is running, drop what has not begun."""
        if self.calls is not None:
            self.calls.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
