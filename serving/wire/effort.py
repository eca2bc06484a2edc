"""How much reading one request may take."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import TypeVar

from dubio.serving.errors import DeadlineExceeded, TooManyRows

_MOST = 2**21
_SLOW = "The time for an answer was up while the instances were read; send fewer at a time."

T = TypeVar("T")


class Effort:
    """What is left of it.

    Args:
        seconds: Until nobody waits for the answer any more.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._until = time.monotonic() + seconds
        self._left = _MOST

    @property
    def seconds(self) -> float:
        """Until nobody waits any more."""
        return self._until - time.monotonic()

    def spend(self, units: int) -> None:
        """Pay for so many characters or values, ahead of reading them.

        Raises:
            TooManyRows: They are more than one request may hold.
            DeadlineExceeded: The time is up.
        """
        self._left -= units
        if self._left < 0:
            raise TooManyRows(
                f"Expected the instances to hold at most {_MOST} characters (in form NFKC) or values that are read, "
                "but they hold more; split them over several requests."
            )
        if self.seconds < 0:
            raise DeadlineExceeded(_SLOW)


class Readers:
    """Threads in which long requests are read, so that the event loop goes on; further ones wait their turn.

    Args:
        threads: How many are read at the same time.
    """

    def __init__(self, threads: int) -> None:
        self._free = asyncio.Semaphore(threads)

    async def run(self, work: Callable[[], T], effort: Effort) -> T:
        """`work()`, which spends `effort`, so that it ends soon after nobody waits any more.

        Raises:
            DeadlineExceeded: The time is up.
        """
        try:
            async with asyncio.timeout(effort.seconds), self._free:
                return await asyncio.to_thread(work)
        except TimeoutError as error:
            raise DeadlineExceeded(_SLOW) from error
