"""The process that computes, as seen from the one that serves.

Imports no torch, beside whose import in this process that in the other one is to happen.
"""

from __future__ import annotations

import pickle
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dubio.models import child_process, trial
from dubio.serving.compute import frames
from dubio.serving.errors import ComputationLost, ProcessUnavailable
from dubio.serving.lifecycle import HANDLED
from dubio.serving.settings import Settings

_CHILD = "dubio.serving.compute.child"
_ENDING_SECONDS = 5.0
PREPARE_TRIALS, NO_TRIALS = b"t", b"n"
NEW_CONNECTION = b"+"


def prepare(settings: Settings) -> ComputeProcess | None:
    """Start what is wanted beside this process, before torch is imported, which takes seconds here and there.

    Returns:
        What computes, if this process is not to.

    Raises:
        ProcessUnavailable: It cannot be started.
    """
    trials = settings.load_trial == "process"
    if settings.predict_in == "process":
        return ComputeProcess(trials=trials)
    if trials:
        trial.prepare()
    return None


class ComputeProcess:
    """Starts it; any thread may call what it was given. It ends with this process, however that ends.

    Args:
        trials: Whether it is to try checkpoints before it loads them, which is made ready at once.

    Raises:
        ProcessUnavailable: It cannot be started.
    """

    def __init__(self, *, trials: bool) -> None:
        self._control, theirs = socket.socketpair()
        # What stops a service may be sent to all of its processes, and this one is wanted until the last answer is
        # given. A process inherits what is blocked.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            self._process = child_process.start(_CHILD, theirs.fileno(), confined=False)
        except (OSError, ValueError) as error:
            self._control.close()
            raise ProcessUnavailable(
                f"The process that computes cannot be started ({getattr(error, 'strerror', None) or error}); let this "
                "program start processes, or set `predict_in` to thread."
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closed = self._hung_up = False
        self._lost: str | None = None
        self._control.sendall(PREPARE_TRIALS if trials else NO_TRIALS)

    def host(self, engine: object, prepare: Callable[[], None]) -> None:
        """Give it the object whose methods are called; before the first call.

        Args:
            engine: Goes there as a pickle.
            prepare: Is called there, once and first of all; goes as a pickle, too.
        """
        hello = pickle.dumps((prepare, engine), pickle.HIGHEST_PROTOCOL)
        with suppress(OSError):  # the first call will tell
            self._control.sendall(frames.frame(hello))

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method there, and wait for what it gives. Raises what it raises.

        Raises:
            ComputationLost: The process ended.
        """
        from dubio.serving.compute import outcome

        request = pickle.dumps((method, arguments), pickle.HIGHEST_PROTOCOL)
        connection = self._idle_connection() or self.connect()
        try:
            connection.sendall(frames.frame(request))
            answer = frames.receive(connection)
        except (OSError, EOFError) as error:
            connection.close()
            raise self.gone() from error
        except BaseException:  # its answer would be taken for that of the next call
            connection.close()
            raise
        self._give_back(connection)
        return outcome.unpack(answer)

    def connect(self) -> socket.socket:
        """A new connection, for one call at a time; the process serves each in a thread of its own.

        Raises:
            ComputationLost: The process ended.
        """
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            try:
                socket.send_fds(self._control, [NEW_CONNECTION], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise self.gone() from error
        return ours

    def gone(self) -> ComputationLost:
        """What a call is told that is not answered."""
        return ComputationLost(self._how_it_ended())

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def lost(self) -> str | None:
        """That it ended by itself, and how; None while it runs, and if it ran until it was closed."""
        if self._lost is None and not self._closed and self._process.poll() is not None:
            self._lost = self._how_it_ended()
        return self._lost

    def close(self) -> None:
        """End it, whatever it computes."""
        self._closed = self.lost is None
        self._control.close()
        with self._lock:
            self._hung_up, idle, self._idle = True, self._idle, []
        for connection in idle:
            connection.close()
        try:
            self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _idle_connection(self) -> socket.socket | None:
        """One that no other thread uses."""
        with suppress(IndexError):
            return self._idle.pop()
        return None

    def _give_back(self, connection: socket.socket) -> None:
        with self._lock:
            if not self._hung_up:
                self._idle.append(connection)
                return
        connection.close()  # its call was answered while this was closed

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            return "The process that computes does not answer"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        how += ", as where memory runs out" if code == -signal.SIGKILL else ""
        return f"The process that computes ended with {how}"
