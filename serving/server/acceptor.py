"""Accepting connections, of which every worker gets as many as the others.

All workers accept from one socket, one connection at a time. A worker that has more connections than another leaves it
a moment to come first; whoever is free takes what a worker that hangs or died does not. `SO_REUSEPORT` would give each
worker a queue of its own: connections in that of a worker that hangs wait for it, and those of one that dies are lost.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dubio.serving.server.sockets import BACKLOG, accept_waiting
from dubio.serving.telemetry.mmap_store import map_file

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
        self._counts = memoryview(map_file(folder / "connections", workers * _BYTES)).cast("q")
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


@dataclass
class Acceptor:
    """Takes one connection at a time, on the running event loop.

    Attributes:
        bound: Socket to listen on.
        make_protocol: Called for each connection.
        counts: Those of all workers.
        count: Tells how many connections this worker has.
    """

    bound: socket.socket
    make_protocol: Callable[[], asyncio.Protocol]
    counts: ConnectionCounts
    count: Callable[[], int]

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[object]] = set()
        self._yielded = False
        self._closed = False
        self.bound.setblocking(False)
        self.bound.listen(BACKLOG)
        self._resume()

    async def close(self) -> None:
        """Take what waits, whose clients believe to be connected, and then no more."""
        self.counts.leave()
        self._closed = True
        self._loop.remove_reader(self.bound)
        waiting = accept_waiting(self.bound)
        self.bound.close()
        for connection in waiting:
            self._connect(connection)
        await asyncio.gather(*self._tasks)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self.bound, self._accept)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self.bound)
        self._loop.call_later(seconds, self._resume)

    def _accept(self) -> None:
        connections = self.count() + len(self._tasks)
        if not self._yielded and self.counts.another_has_fewer(connections):
            self._yielded = True
            self._pause(_YIELD_SECONDS)
            return
        self._yielded = False
        try:
            connection, _ = self.bound.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):  # another worker came first, or the client left
            return
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._pause(_PAUSE_SECONDS)
            return
        self.counts.show(connections + 1)
        self._connect(connection)

    def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self.make_protocol, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
