"""Threads that race."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

RACERS = 8


@pytest.fixture
def race() -> Callable[[int, Callable[[str], None], Callable[[], object]], int]:
    """Counts "0", "1" and so on in several threads at once, while another one looks; says how many threads counted."""
    interval = sys.getswitchinterval()

    def run(times: int, count: Callable[[str], None], look: Callable[[], object]) -> int:
        step, ended = threading.Barrier(RACERS, timeout=30), threading.Event()

        def counting() -> None:
            for number in range(times):
                step.wait()
                count(str(number))

        def looking() -> None:
            while not ended.is_set():
                look()

        sys.setswitchinterval(1e-6)  # threads take the interpreter from each other as often as they can
        try:
            with ThreadPoolExecutor(RACERS + 1) as pool:
                onlooker = pool.submit(looking)
                racers = [pool.submit(counting) for _ in range(RACERS)]
                errors = [racer.exception() for racer in racers]
                ended.set()
                errors.append(onlooker.exception())
        finally:
            sys.setswitchinterval(interval)
        assert errors == [None] * (RACERS + 1)
        return RACERS

    return run
