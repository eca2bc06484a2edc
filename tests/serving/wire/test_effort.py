from __future__ import annotations

import asyncio
import threading

import pytest

from dubio.serving.errors import DeadlineExceeded, TooManyRows
from dubio.serving.wire.effort import Effort, Readers


def test_characters_and_time_are_bounded() -> None:
    effort = Effort(seconds=60)
    effort.spend(2**21)
    with pytest.raises(TooManyRows, match=r"at most 2097152 characters .* split them"):
        effort.spend(1)
    with pytest.raises(DeadlineExceeded, match="send fewer"):
        Effort(seconds=-1).spend(1)


def test_so_many_are_read_at_a_time_and_nobody_waits_for_ever() -> None:
    go, lock, running = threading.Event(), threading.Lock(), [0, 0]

    def work() -> int:
        with lock:
            running[0] += 1
            running[1] = max(running)
        go.wait(30)
        with lock:
            running[0] -= 1
        return 7

    async def run() -> None:
        readers = Readers(threads=2)
        tasks = [asyncio.create_task(readers.run(work, Effort(60))) for _ in range(5)]
        while running[0] < 2:
            await asyncio.sleep(0.001)
        with pytest.raises(DeadlineExceeded):  # it never had its turn
            await readers.run(work, Effort(0.01))
        go.set()
        assert await asyncio.gather(*tasks) == [7] * 5

    asyncio.run(run())
    assert running[1] == 2
