"""Calls from the event loop, without threads that wait: who waits for an answer would wait for the interpreter, too."""

from __future__ import annotations

import asyncio
import pickle
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dubio.serving.compute import frames, outcome
from dubio.serving.compute.process import ComputeProcess
from dubio.serving.errors import ComputationLost, Stopping

Done = Callable[[Any], None]
"""Is told the answer, or the exception in its place."""
_PART = 1 << 20


@dataclass(eq=False)
class _Line:
    """A connection, and the call that is on it."""

    connection: socket.socket
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    received: bytearray = field(default_factory=bytearray)
    done: Done | None = None
    began: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether the whole answer is there."""
        size = len(self.received)
        return size >= frames.HEAD and size >= frames.HEAD + frames.length(self.received)


@dataclass(frozen=True)
class _Call:
    request: bytes
    begun: Callable[[], None]
    done: Done


class Calls:
    """Everything here happens on the event loop that calls first.

    Args:
        process: Which hosts what is called.
        most: Calls at a time; others wait for their turn.
    """

    def __init__(self, process: ComputeProcess, most: int) -> None:
        self._process, self._most = process, most
        self._lines: list[_Line] = []
        self._waiting: deque[_Call] = deque()
        self._closed = False

    def begin(self, method: str, *arguments: Any, begun: Callable[[], None], done: Done) -> None:
        """Call a method there.

        Args:
            method: Its name.
            arguments: Go there as a pickle.
            begun: Is told that it is this call's turn.
            done: Is told what came of it, in the round of the loop in which it comes: never before this returns.
        """
        if self._closed:
            asyncio.get_running_loop().call_soon(done, _over())
            return
        request = frames.frame(pickle.dumps((method, arguments), pickle.HIGHEST_PROTOCOL))
        self._waiting.append(_Call(request, begun, done))
        self._next()

    @property
    def busy_seconds(self) -> float:
        """How long the call that began first, and is not answered, has taken."""
        now = time.monotonic()
        return now - min((line.began for line in list(self._lines) if line.done is not None), default=now)

    def close(self) -> None:
        """Wait for what is running, and hold up the loop meanwhile; then all are told that it is over, and hang up."""
        self._closed = True
        left = [call.done for call in self._waiting]
        self._waiting.clear()
        for line in self._lines:
            if line.done is not None:
                left.append(line.done)
                line.connection.setblocking(True)
                with suppress(OSError):
                    line.connection.sendall(line.unsent)
                    while not line.complete and (part := line.connection.recv(_PART)):
                        line.received += part
            self._hang_up(line)
        self._lines.clear()
        for done in left:
            done(_over())

    def _next(self) -> None:
        """Give what waits its turn."""
        while self._waiting and (line := self._free()) is not None:
            call = self._waiting.popleft()
            line.done, line.began, line.unsent = call.done, time.monotonic(), memoryview(call.request)
            call.begun()
            self._send(line)

    def _free(self) -> _Line | None:
        for line in self._lines:
            if line.done is None:
                return line
        if len(self._lines) >= self._most:
            return None
        loop = asyncio.get_running_loop()
        try:
            line = _Line(self._process.connect())
        except ComputationLost as error:
            while self._waiting:
                loop.call_soon(self._waiting.popleft().done, error)
            return None
        line.connection.setblocking(False)
        self._lines.append(line)
        loop.add_reader(line.connection, self._receive, line)
        return line

    def _send(self, line: _Line) -> None:
        """Send as much as goes; the rest once there is room."""
        try:
            sent = line.connection.send(line.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:  # it is gone, which the reader is told, too
            return
        line.unsent = line.unsent[sent:]
        loop = asyncio.get_running_loop()
        if line.unsent:
            loop.add_writer(line.connection, self._send, line)
        else:
            loop.remove_writer(line.connection)

    def _receive(self, line: _Line) -> None:
        """Take what has come; once that is all, tell who waits for it, and give the next one its turn."""
        try:
            part = line.connection.recv(_PART)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._lost(line)
            return
        line.received += part
        if not line.complete:
            return
        message = memoryview(line.received)[frames.HEAD :]
        line.received, done, line.done = bytearray(), line.done, None
        try:
            if done is not None:
                done(_opened(message))
        finally:
            self._next()

    def _lost(self, line: _Line) -> None:
        """The process is gone."""
        self._hang_up(line)
        self._lines.remove(line)
        try:
            if line.done is not None:
                line.done(self._process.gone())
        finally:
            self._next()

    @staticmethod
    def _hang_up(line: _Line) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(line.connection)
        loop.remove_writer(line.connection)
        line.connection.close()


def _over() -> Stopping:
    return Stopping("The service is stopping; ask another one.")


def _opened(message: memoryview) -> Any:
    try:
        return outcome.unpack(message)
    except Exception as error:  # for whoever called
        return error
