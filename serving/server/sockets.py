"""The socket that the service listens on: bound once, before anything slow, and shared by all workers."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the address but refuses connections until a server listens, ready to answer.

    Raises:
        OSError: the address is taken, unknown or forbidden.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait for old connections
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def url(bound: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


_BYTES = 8
# What stands in the place of a worker that takes no connections: one that starts, stops or is gone.
_AWAY = -1


class Shares:
    """The board, and this worker's place on it."""

    def __init__(self, folder: Path, workers: int, worker: int) -> None:
        """Open the board of so many `workers` in `folder`, at the place of `worker`, which is away at first."""
        descriptor = os.open(folder / "shares", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, workers * _BYTES)
            self._memory = mmap.mmap(descriptor, workers * _BYTES)
        finally:
            os.close(descriptor)
        self._board = memoryview(self._memory).cast("q")
        self._worker = worker
        self.leave()

    def show(self, connections: int) -> None:
        """Say how many connections this worker has."""
        self._board[self._worker] = connections

    def leave(self) -> None:
        """Say that this worker takes no connections for now."""
        self._board[self._worker] = _AWAY

    def is_ahead(self, connections: int) -> bool:
        """Whether some other worker has fewer."""
        return any(_AWAY < other < connections for other in self._board)


_BACKLOG = 2048
# A worker that has more connections than another leaves it this long to come first.
_COURTESY_SECONDS = 0.005
# The process or the system is out of what a connection needs; connections wait in the queue meanwhile.
_SHORT_OF_MEANS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_SECONDS = 0.5


class Acceptor:
    """Takes one connection at a time, on the running event loop."""

    def __init__(
        self,
        bound: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        shares: Shares,
        count: Callable[[], int],
    ) -> None:
        """Connections of `bound` are handed to a protocol each; `count` says how many there are."""
        self._bound = bound
        self._make_protocol = make_protocol
        self._shares = shares
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[object]] = set()
        self._waited = False
        self._closed = False
        bound.setblocking(False)
        bound.listen(_BACKLOG)
        self._resume()

    async def close(self) -> None:
        """Take what waits, whose clients believe to be connected, and then no more."""
        self._closed = True
        self._loop.remove_reader(self._bound)
        waiting = accept_waiting(self._bound)
        self._bound.close()
        for connection in waiting:
            self._connect(connection)
        await asyncio.gather(*self._tasks)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._bound, self._accept)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._bound)
        self._loop.call_later(seconds, self._resume)

    def _accept(self) -> None:
        connections = self._count() + len(self._tasks)
        if not self._waited and self._shares.is_ahead(connections):
            self._waited = True
            self._pause(_COURTESY_SECONDS)
            return
        self._waited = False
        try:
            connection, _ = self._bound.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):  # another worker came first, or the client left
            return
        except OSError as error:
            if error.errno not in _SHORT_OF_MEANS:
                raise
            self._pause(_PAUSE_SECONDS)
            return
        self._shares.show(connections + 1)
        self._connect(connection)

    def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._make_protocol, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def accept_waiting(bound: socket.socket) -> list[socket.socket]:
    """Connections that were made but not accepted; they would be reset, and what was sent on them lost."""
    found: list[socket.socket] = []
    bound.setblocking(False)
    try:
        while len(found) < _BACKLOG:
            found.append(bound.accept()[0])
    except OSError:  # none is left, or the process is out of what a connection needs
        return found
    return found
