"""The process that forks those that try checkpoints, as seen from the one that asks.

It runs beside this one from the first trial on, and ends when it has had nothing to do for a while, or when this does.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dubio.models import child_process

# By the clock, to the processor time that is allowed: others may be using the processors, and a trial lets them.
PATIENCE = 5
# After so many seconds without a trial the process ends; a little before, none is asked of it any more.
IDLE_SECONDS, FRESH_SECONDS = 45.0, 30.0
START_SECONDS = 120.0
_SERVER = "dubio.models.trial_server"
_MAX_ANSWER = 2**16


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        answer: What the process said last, if it came so far.
        signal: That ended it, if one did.
        late: Whether it was ended because its time by the clock was over.
        seconds: Processor time that it took.
        peak: Most bytes of memory that it held.
    """

    answer: Mapping[str, Any] | None
    signal: int | None
    late: bool
    seconds: float
    peak: int


class Server:
    """A running process that forks those that try."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        try:
            self.process = child_process.start(_SERVER, theirs.fileno())
        except (OSError, ValueError):
            self.socket.close()
            raise
        finally:
            theirs.close()
        self._ready, self._used = False, time.monotonic()
        # It may end at any time, and is not to be left as a zombie.
        threading.Thread(target=self.process.wait, daemon=True, name="dubio-trial").start()

    @property
    def fresh(self) -> bool:
        """Whether it cannot have ended for want of work."""
        ended = self.process.returncode is not None  # also before the first trial, if that is long in coming
        return not ended and (not self._ready or time.monotonic() - self._used < FRESH_SECONDS)

    def _await(self) -> None:
        """Wait until it is ready.

        Raises:
            OSError: It does not become so.
        """
        assert self.process.stderr is not None
        with self.process.stderr as errors:
            try:
                self._receive(START_SECONDS)
            except OSError as error:
                self.socket.close()
                self.process.kill()
                self.process.wait()
                said = errors.read().decode(errors="replace").strip().splitlines() or [str(error)]
                raise OSError(f"{sys.executable} does not start it: {said[-1][:500]}") from error

    def ask(self, request: Mapping[str, Any], descriptor: int) -> Outcome:
        """Have an open file tried.

        Raises:
            OSError: It ended.
        """
        if not self._ready:
            self._await()
            self._ready = True
        message = json.dumps(request).encode()
        socket.send_fds(self.socket, [len(message).to_bytes(4, "big")], [descriptor])
        self.socket.sendall(message)
        answer = self._receive(PATIENCE * request["limits"]["seconds"] + START_SECONDS)
        self._used = time.monotonic()
        return Outcome(**answer)

    def _receive(self, seconds: float) -> dict[str, Any]:
        """Wait for an answer.

        Raises:
            OSError: There is none.
        """
        end, data = time.monotonic() + seconds, b""
        while not data.endswith(b"\n"):
            self.socket.settimeout(max(0.001, end - time.monotonic()))
            part = self.socket.recv(_MAX_ANSWER)
            if not part:
                raise OSError("the process that starts trials ended")
            data += part
        answer: dict[str, Any] = json.loads(data)
        return answer

    def close(self) -> None:
        """Let it end, and with it a trial that runs: it sees that nobody is there any more."""
        self.socket.close()
        if self.process.stderr is not None:  # closed already, where a trial was asked for
            self.process.stderr.close()


class Servers:
    """The server of this process: started when needed, asked for one trial at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: Server | None = None

    def prepare(self) -> None:
        """Start the server, which takes seconds to import torch; whoever wants a trial waits for what is left."""
        with self._lock:
            self._running()

    def _running(self) -> Server:
        if self._server is None or not self._server.fresh:
            self.close()
            self._server = Server()
        return self._server

    def ask(self, request: Mapping[str, Any], descriptor: int) -> Outcome:
        """Have an open file tried.

        Raises:
            OSError: There can be no server, or it ended meanwhile.
        """
        with self._lock:
            server = self._running()
            try:
                return server.ask(request, descriptor)
            except BaseException:  # whoever interrupts the wait does not wait for what is left of the trial either
                self.close()
                raise

    def close(self) -> None:
        """End the server, if there is one."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def forget(self) -> None:
        """In a fork of this process: the server is its parent's."""
        self._lock = threading.Lock()
        self.close()


servers = Servers()
atexit.register(servers.close)
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=servers.forget)
