"""How a process of the service ends: first not ready, then closed to new connections, then done; or at once.

And how it goes on with other keys and models, as servers do by tradition when they get SIGHUP.
"""

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
HANDLED = (*SIGNALS, signal.SIGHUP)
# What a shell reports for a process that a signal ended.
ENDED_BY = 128


class Lifecycle:
    """Where the process stands.

    Attributes:
        stopping: Whether it ends; readiness and keep-alive depend on it.
        everyone: Whether all processes of the service end with it, so that nobody is left who accepts connections.
    """

    def __init__(self) -> None:
        self.stopping = self.everyone = False
        # Until something is served, the process may end at any moment without harm.
        self._begin: Callable[[], object] | None = None
        self._begin_reload: Callable[[], object] | None = None
        self._outdated = False

    def serving(self, close: Callable[[], None], reload: Callable[[], object], *, drain: float, grace: int) -> None:
        """From now on requests are answered by the running loop, and stopping takes care of them.

        Args:
            close: Refuses new connections, and ends the process once the present ones are done.
            reload: Begins to read keys and models again.
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
        self._begin_reload = lambda: loop.call_soon_threadsafe(reload)
        if self._outdated:
            self._begin_reload()

    def stop(self, *, everyone: bool = True) -> None:
        """Begin to end; at once while nothing is served yet. From any thread, and as often as one likes.

        Args:
            everyone: Whether all processes of the service end.
        """
        self.everyone |= everyone
        if self._begin is None:
            end(0, "Stopped before the models were loaded.")
        if not self.stopping:
            self.stopping = True
            self._begin()

    def reload(self) -> None:
        """Read keys and models again, once all that was to be served from the start is. From any thread."""
        if self._begin_reload is None:
            self._outdated = True
        else:
            self._begin_reload()

    def obey_signals(self) -> None:
        """SIGTERM and SIGINT stop the process; a second one ends it at once, with the exit code of a shell.

        SIGHUP reloads; where the terminal is gone that the process was started in, it stops.
        """
        received = 0
        terminal = Terminal()

        def obey(number: int, frame: FrameType | None) -> None:
            nonlocal received
            received += 1
            if received > 1:
                end(ENDED_BY + number, "Ended by a second signal; requests in flight are lost.")
            self.stop()

        def hang_up(number: int, frame: FrameType | None) -> None:
            if terminal.gone:
                self.stop()
            else:
                self.reload()

        for number in SIGNALS:
            signal.signal(number, obey)
        signal.signal(signal.SIGHUP, hang_up)


class Terminal:
    """The terminal of this process, if it has one and was not told by `nohup` to outlive it."""

    def __init__(self) -> None:
        self._watched = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

    @property
    def gone(self) -> bool:
        """Whether it was closed."""
        return self._watched and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def tell(message: str) -> None:
    """Write a line to the standard error; nobody may be there to read it.

    Safe in a signal handler, where the logging module may be in the middle of a line.
    """
    try:
        os.write(2, f"dubio-serve: {message}\n".encode())
    except OSError:  # a terminal or a reader that is gone
        return


def end(code: int, message: str | None = None) -> NoReturn:
    """End this process now. An ordinary exit would wait for threads that still compute, and then take torch apart.

    Args:
        code: The exit code.
        message: Written to the standard error first.
    """
    if message is not None:
        tell(message)
    os._exit(code)
