"""Accepting connections, of which every worker gets as many as the others.

All workers accept from one socket, one connection at a time. A worker that has more connections than another leaves it
a moment to come first; whoever is free takes what a worker that hangs or died does not. `SO_REUSEPORT` would give each
worker a queue of its own: connections in that of a worker that hangs wait for it, and those of one that dies are lost.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path

from dubio.serving.server.sockets import BACKLOG, accept_waiting

_BYTES = 8
# Instead of a count, for a worker that takes no connections: one that starts, stops or is gone.
_AWAY = -1
_YIELD_SECONDS = 0.005
# The process or the system is out of what a connection needs; connections wait in the queue meanwhile.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_SECONDS = 0.5


class ConnectionCounts:
    """How many connections each worker has, in memory that they share."""

    def __init__(self, folder: Path, workers: int, worker: int) -> None:
        """Open the counts at this worker's, which is away at first.

        Args:
            folder: Folder that the workers share.
            workers: How many there are.
            worker: The number of this one.
        """
        descriptor = os.open(folder / "connections", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, workers * _BYTES)
            self._counts = memoryview(mmap.mmap(descriptor, workers * _BYTES)).cast("q")
        finally:
            os.close(descriptor)
        self._worker = worker
        self.leave()

    def show(self, connections: int) -> None:
        """Tell the others how many connections this worker has."""
        self._counts[self._worker] = connections

    def leave(self) -> None:
        """Tell the others that this worker takes no connections for now."""
        self._counts[self._worker] = _AWAY

    def another_has_fewer(self, connections: int) -> bool:
        """Tell whether some other worker has fewer than so many."""
        return any(_AWAY < other < connections for other in self._counts)


class Acceptor:
    """Takes one connection at a time, on the running event loop."""

    def __init__(
        self,
        bound: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        counts: ConnectionCounts,
        count: Callable[[], int],
    ) -> None:
        """Listen.

        Args:
            bound: Socket to listen on.
            make_protocol: Called for each connection.
            counts: Those of all workers.
            count: Tells how many connections this worker has.
        """
        self._bound = bound
        self._make_protocol = make_protocol
        self._counts = counts
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[object]] = set()
        self._yielded = False
        self._closed = False
        bound.setblocking(False)
        bound.listen(BACKLOG)
        self._resume()

    async def close(self) -> None:
        """Take what waits, whose clients believe to be connected, and then no more."""
        self._counts.leave()
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
        if not self._yielded and self._counts.another_has_fewer(connections):
            self._yielded = True
            self._pause(_YIELD_SECONDS)
            return
        self._yielded = False
        try:
            connection, _ = self._bound.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):  # another worker came first, or the client left
            return
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._pause(_PAUSE_SECONDS)
            return
        self._counts.show(connections + 1)
        self._connect(connection)

    def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._make_protocol, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
