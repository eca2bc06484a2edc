from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path

import pytest

from dubio.serving.server.acceptor import Acceptor, ConnectionCounts


def test_a_worker_knows_whether_another_has_fewer(tmp_path: Path) -> None:
    one, other, third = (ConnectionCounts(tmp_path, 3, number) for number in range(3))
    assert not one.another_has_fewer(5)  # nobody else is there
    one.show(2)
    other.show(1)
    assert one.another_has_fewer(2)
    assert not other.another_has_fewer(1)
    assert third.another_has_fewer(2)
    other.leave()
    assert not one.another_has_fewer(2)


def test_a_worker_that_starts_anew_is_away(tmp_path: Path) -> None:
    one, other = ConnectionCounts(tmp_path, 2, 0), ConnectionCounts(tmp_path, 2, 1)
    other.show(0)
    assert one.another_has_fewer(1)
    ConnectionCounts(tmp_path, 2, 1)
    assert not one.another_has_fewer(1)


class Held(asyncio.Protocol):
    """A connection that counts for whoever took it."""

    def __init__(self, mine: set[Held]) -> None:
        self._mine = mine

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._mine.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._mine.discard(self)


def listen(folder: Path, workers: int) -> tuple[socket.socket, list[set[Held]], list[Acceptor]]:
    """A socket with acceptors on it, as if each were a process."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    held: list[set[Held]] = [set() for _ in range(workers)]
    acceptors = []
    for number, mine in enumerate(held):
        counts = ConnectionCounts(folder, workers, number)
        counts.show(0)
        acceptors.append(Acceptor(bound.dup(), lambda mine=mine: Held(mine), counts, lambda mine=mine: len(mine)))
    return bound, held, acceptors


async def connect(bound: socket.socket, times: int) -> list[asyncio.StreamWriter]:
    return [(await asyncio.open_connection(*bound.getsockname()))[1] for _ in range(times)]


async def settle(held: list[set[Held]], total: int) -> None:
    while sum(map(len, held)) != total:
        await asyncio.sleep(0.01)


async def close(bound: socket.socket, clients: list[asyncio.StreamWriter], held: list[set[Held]]) -> None:
    for client in clients:
        client.close()
    await settle(held, 0)
    bound.close()


def test_a_burst_is_shared_out_evenly(tmp_path: Path) -> None:
    async def run() -> list[int]:
        bound, held, acceptors = listen(tmp_path, 3)
        clients = await connect(bound, 30)
        await settle(held, 30)
        counts = [len(mine) for mine in held]
        for acceptor in acceptors:
            await acceptor.close()
        await close(bound, clients, held)
        return counts

    counts = asyncio.run(run())
    assert max(counts) - min(counts) <= 2


def test_what_one_cannot_take_another_does(tmp_path: Path) -> None:
    async def run() -> list[int]:
        bound, held, acceptors = listen(tmp_path, 2)
        await acceptors[0].close()
        ConnectionCounts(tmp_path, 2, 0).show(0)  # as that of a worker that hangs would say
        clients = await connect(bound, 5)
        await settle(held, 5)
        counts = [len(mine) for mine in held]
        await acceptors[1].close()
        await close(bound, clients, held)
        return counts

    assert asyncio.run(run()) == [0, 5]


def test_what_waits_when_the_door_closes_is_let_in(tmp_path: Path) -> None:
    async def run() -> int:
        bound, held, [acceptor] = listen(tmp_path, 1)
        address = bound.getsockname()
        # Blocking: the acceptor has had no chance to see them.
        clients = [socket.create_connection(address) for _ in range(5)]
        await acceptor.close()
        await settle(held, 5)
        for client in clients:
            client.close()
        await settle(held, 0)
        bound.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        return len(clients)

    assert asyncio.run(run()) == 5


def test_nobody_yields_to_a_worker_that_closed(tmp_path: Path) -> None:
    async def run() -> tuple[bool, bool]:
        bound, _, [closing, other] = listen(tmp_path, 2)
        counts = ConnectionCounts(tmp_path, 2, 1)
        before = counts.another_has_fewer(1)
        await closing.close()
        after = counts.another_has_fewer(1)
        await other.close()
        bound.close()
        return before, after

    assert asyncio.run(run()) == (True, False)


def test_without_file_descriptors_connections_wait_instead_of_failing(tmp_path: Path) -> None:
    class Short(socket.socket):
        failures = 1

        def accept(self) -> tuple[socket.socket, object]:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def run() -> int:
        bound = Short()
        bound.bind(("127.0.0.1", 0))
        mine: set[Held] = set()
        acceptor = Acceptor(bound, lambda: Held(mine), ConnectionCounts(tmp_path, 1, 0), lambda: len(mine))
        clients = await connect(bound, 3)
        await settle([mine], 3)
        accepted = len(mine)
        await acceptor.close()
        await close(bound, clients, [mine])
        return accepted

    assert asyncio.run(run()) == 3
