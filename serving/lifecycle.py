"""How a process of the service ends: first not ready, then closed to new connections, then done; or at once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

_log = logging.getLogger("dubio")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What a shell reports for a process that a signal ended.
ENDED_BY = 128


class Lifecycle:
    """Where the process stands.

    Attributes:
        stopping: Whether it ends; readiness and keep-alive depend on it.
    """

    def __init__(self) -> None:
        self.stopping = False
        # Until something is served, the process may end at any moment without harm.
        self._begin: Callable[[], object] | None = None

    def serving(self, close: Callable[[], None], *, drain: float, grace: int) -> None:
        """From now on requests are answered by the running loop, and stopping takes care of them.

        Args:
            close: Refuses new connections, and ends the process once the present ones are done.
            drain: Seconds until `close`.
            grace: Seconds until the process ends, whatever is left to do.
        """
        loop = asyncio.get_running_loop()

        def begin() -> None:
            _log.info("Stopping: not ready any more, finishing what has begun within %d s.", grace)
            loop.call_later(drain, close)
            lost = f"The grace period of {grace} s is over; requests in flight are lost."
            overdue = threading.Timer(grace, end, (1, lost))
            overdue.daemon = True
            overdue.start()

        self._begin = lambda: loop.call_soon_threadsafe(begin)

    def stop(self) -> None:
        """Begin to end; at once while nothing is served yet. From any thread, and as often as one likes."""
        if self._begin is None:
            end(0, "Stopped before the models were loaded.")
        if not self.stopping:
            self.stopping = True
            self._begin()

    def obey_signals(self) -> None:
        """SIGTERM and SIGINT stop the process; a second one ends it at once, with the exit code of a shell."""
        received = 0

        def obey(number: int, frame: FrameType | None) -> None:
            nonlocal received
            received += 1
            if received > 1:
                end(ENDED_BY + number, "Ended by a second signal; requests in flight are lost.")
            self.stop()

        for number in SIGNALS:
            signal.signal(number, obey)


def end(code: int, message: str | None = None) -> NoReturn:
    """End this process now. An ordinary exit would wait for threads that still compute, and then take torch apart.

    Safe in a signal handler, where the logging module may be in the middle of a line.

    Args:
        code: The exit code.
        message: Written to the standard error first.
    """
    if message is not None:
        os.write(2, f"dubio-serve: {message}\n".encode())
    os._exit(code)
