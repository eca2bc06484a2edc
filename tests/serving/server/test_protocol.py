from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection

import pytest
import uvicorn

from dubio.serving.server import protocol
from dubio.serving.server.protocol import BoundedProtocol, Limits

LIMIT = 64 * 1024
HEAD_SECONDS = 0.3
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Service:
    """A server of an application that says how large a request's body was."""

    port: int
    reached: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    server: uvicorn.Server | None = None

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def send(self, *pieces: bytes) -> bytes:
        """All that comes back until the connection is closed."""
        with self.connect() as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
                for piece in pieces:
                    connection.sendall(piece)
            return rest(connection)

    def ask(self) -> None:
        with self.connect() as connection:
            connection.sendall(GET)
            assert answer(connection).startswith(b"HTTP/1.1 200 ")

    def close(self) -> None:
        """Until new connections fail."""
        assert self.server is not None
        self.server.should_exit = True
        with suppress(ConnectionError):
            while True:
                self.connect().close()


def rest(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def answer(connection: socket.socket) -> bytes:
    """One answer, whose body is short."""
    received = b""
    while b"\r\n\r\n" not in received or not received.split(b"\r\n\r\n", 1)[1]:
        chunk = connection.recv(65536)
        assert chunk, received
        received += chunk
    return received


@contextmanager
def serve(*, keep_alive: int = 30, head_seconds: float = HEAD_SECONDS) -> Iterator[Service]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    service = Service(listener.getsockname()[1])

    async def application(scope: dict, receive: Callable, send: Callable) -> None:
        service.reached.append(scope["path"])
        if scope["path"] == "/early":  # an answer that does not wait for the body
            size = 0
        else:
            size, more = 0, True
            while more:
                message = await receive()
                size += len(message.get("body", b""))
                more = message.get("more_body", False)
        if scope["path"] == "/slow":
            await asyncio.sleep(3 * HEAD_SECONDS)
        body = str(size).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    bounded = partial(BoundedProtocol, limits=Limits(LIMIT, head_seconds), refused=service.refused.append)
    config = uvicorn.Config(
        application,
        http=bounded,  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=keep_alive,
    )
    service.server = uvicorn.Server(config)
    thread = threading.Thread(target=service.server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not service.server.started:
            time.sleep(0.01)
        yield service
    finally:
        service.server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def service() -> Iterator[Service]:
    """With all the time that a busy machine may take to send a head."""
    with serve(head_seconds=60) as service:
        yield service


@pytest.fixture
def hasty() -> Iterator[Service]:
    with serve() as service:
        yield service


LINES = b"".join(b"X-%d: 1\r\n" % index for index in range(50_000))


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET / HTTP/1.1\r\nX: " + b"a" * 2 * LIMIT + b"\r\n\r\n"],
        [b"GET /" + b"a" * 2 * LIMIT + b" HTTP/1.1\r\nHost: x\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nX: ", *[b"a" * 65536] * 480],
        [b"GET /", *[b"a" * 65536] * 480],
        [b"GET / HTTP/1.1\r\n", LINES],
        [b"GET / HTTP/1.1\r\n" + LINES + b"\r\n"],
        [b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 1001 + b"\r\n"],
        [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", *[b"a" * 65536] * 480],
        [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", LINES],
    ],
    ids=["long line", "long path", "endless line", "endless path", "endless lines", "many lines", "many short lines",
         "endless trailer", "many trailers"],
)  # fmt: skip
def test_a_head_that_is_too_large_is_refused_in_words(service: Service, pieces: list[bytes]) -> None:
    head, _, body = service.send(*pieces).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b"connection: close" in head
    assert json.loads(body)["status"] == 431
    assert "Expected" in json.loads(body)["detail"]
    assert service.refused == ["head_too_large"]
    assert service.reached == ([] if pieces[0].startswith(b"GET") else ["/"])
    assert service.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("size", [1024, LIMIT])
def test_a_head_just_within_the_limit_is_taken_whole_or_in_pieces(service: Service, size: int) -> None:
    filler = LIMIT - 200
    request = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\nX: " + b"a" * filler + b"\r\n\r\nabc"
    pieces = [request[start : start + size] for start in range(0, len(request), size)]
    assert service.send(*pieces).endswith(b"\r\n\r\n3")
    assert service.refused == []


def test_bodies_are_none_of_its_business(service: Service) -> None:
    """Large ones, in chunks, with the next request's head in the same piece."""
    size = 3_000_000
    plain = b"POST /plain HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size
    chunked = b"POST /chunked HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n"
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    received = service.send(plain + chunked + last)
    assert [each.split(b"\r\n")[0] for each in received.split(b"\r\n\r\n")[1:]] == [
        b"3000000HTTP/1.1 200 OK",
        b"100000HTTP/1.1 200 OK",
        b"0",
    ]
    assert service.refused == []


@pytest.mark.parametrize("pieces", [1, 20])
def test_a_slow_head_has_until_its_time_is_up_however_it_trickles(hasty: Service, pieces: int) -> None:
    with hasty.connect() as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            for index in range(pieces):
                connection.sendall(b"GET / HTTP/1.1\r\nX: a"[index : index + 1] or b"a")
                time.sleep(HEAD_SECONDS / 10)
        received = rest(connection)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert hasty.refused == ["head_too_slow"]
    assert hasty.reached == []


def test_a_slow_head_behind_a_request_waits_for_no_answer_of_another(hasty: Service) -> None:
    """The first is answered or not, but never with what is meant for the second."""
    received = hasty.send(GET.replace(b"/ ", b"/slow ") + b"GET / HT")
    assert b"408" not in received
    assert hasty.refused == ["head_too_slow"]


def test_idle_connections_are_not_hurried(hasty: Service) -> None:
    """Before a request, between two, and where the rest of a body came after the answer."""
    with hasty.connect() as connection:
        time.sleep(2 * HEAD_SECONDS)
        connection.sendall(GET)
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
        time.sleep(2 * HEAD_SECONDS)
        connection.sendall(b"POST /early HTTP/1.1\r\nContent-Length: 3\r\n\r\na")
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"bc\r\n")
        time.sleep(2 * HEAD_SECONDS)
        connection.sendall(GET)
        assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_the_rest_of_a_refused_body_is_not_awaited_for_ever(hasty: Service) -> None:
    with hasty.connect() as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nContent-Length: 1000000\r\n\r\na")
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"b")
        assert rest(connection) == b""


def test_connections_that_say_nothing_or_nothing_more_are_closed() -> None:
    with serve(keep_alive=1) as service, service.connect() as silent, service.connect() as idle:
        idle.sendall(GET)
        assert answer(idle).startswith(b"HTTP/1.1 200 ")
        idle.sendall(b"\r\n")  # is no request
        assert rest(silent) == b""
        assert rest(idle) == b""
        assert service.refused == []


def test_pipelined_requests_are_answered_in_order_up_to_a_bound(service: Service) -> None:
    def posts(count: int) -> bytes:
        return b"".join(
            b"POST /slow HTTP/1.1\r\nContent-Length: %d\r\n%s\r\n" % (index, b"") + b"a" * index
            for index in range(count)
        )

    with service.connect() as connection:
        connection.sendall(posts(3))
        received = b""
        while received.count(b"\r\n\r\n") < 3 or received.endswith(b"\n"):
            received += connection.recv(65536)
    assert [part[:1] for part in received.split(b"\r\n\r\n")[1:]] == [b"0", b"1", b"2"]
    assert service.send(posts(1000)) == b""
    assert service.refused == ["too_many_pipelined"]
    assert len(service.reached) == 4


def test_no_http_is_answered_in_the_same_form(service: Service) -> None:
    head, _, body = service.send(b"\x16\x03\x01 hello\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert "HTTP client" in json.loads(body)["detail"]
    assert service.refused == ["malformed_http"]


def test_whoever_asks_for_another_protocol_is_answered_in_this_one(service: Service) -> None:
    """The parser would not see a second request."""
    upgrade = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    received = service.send(upgrade)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in received


def test_what_is_asked_while_the_door_closes_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a connection that was idle, that was new, that had sent half a head."""
    monkeypatch.setattr(protocol, "_LINGER_SECONDS", 30)  # each ends with its answer
    with (
        serve(head_seconds=30) as service,
        service.connect() as idle,
        service.connect() as new,
        service.connect() as half,
    ):
        half.sendall(GET[:9])
        idle.sendall(GET)
        answer(idle)  # so what half sent before was read as well
        service.close()
        for connection, data in ((idle, GET), (new, GET), (half, GET[9:])):
            connection.sendall(data)
            received = rest(connection)
            assert received.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in received


def test_a_head_that_never_ends_does_not_hold_up_the_end() -> None:
    with serve() as service, service.connect() as connection:
        connection.sendall(GET[:9])
        service.ask()  # so what was sent before was read as well
        service.close()
        assert rest(connection).startswith(b"HTTP/1.1 408 ")


def test_clients_reuse_connections_as_before(service: Service) -> None:
    connection = HTTPConnection("127.0.0.1", service.port)
    used = set()
    for size in (0, 10, 100_000):
        connection.request("POST", "/", b"a" * size)
        used.add(connection.sock.getsockname())
        assert connection.getresponse().read() == str(size).encode()
    connection.close()
    assert len(used) == 1
