"""Whatever comes through the socket: it is refused in words, the next good request is answered, and memory stays."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.serving.command import Command

pytestmark = pytest.mark.slow

MAX_BODY = 256 * 1024
KEY = "end-to-end-key-0123456789"
GOOD = {"instances": [[1, 2, 3, 4, 5]]}
TENSOR = {"name": "input", "shape": [1, 5], "datatype": "FP32", "data": [1, 2, 3, 4, 5]}
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Server:
    """A running service, spoken to byte by byte."""

    port: int
    process: psutil.Process

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def send(self, data: bytes) -> int | None:
        """The status of the answer to these bytes; None if the connection is closed without one."""
        with self.connect() as connection:
            # Refused before all was sent; what it said may still be there.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(data)
            return status(connection)

    def post(self, path: str, body: object = b"", headers: dict[str, str] | None = None) -> int | None:
        return self.send(request(path, body, headers))

    def callers(self) -> list[Any]:
        """The connections that it holds, also those whose other end is gone."""
        # psutil 5's name, which kserve keeps here; 6 warns of it, and calls it net_connections.
        return [each for each in self.process.connections() if each.status != psutil.CONN_LISTEN]

    def good(self) -> bool:
        """Whether a good request is answered on each API."""
        v2 = request("/v2/models/row/infer", {"inputs": [TENSOR]})
        return [self.post("/v1/predict", GOOD), self.send(v2)] == [200, 200]


def request(path: str, body: object = b"", headers: dict[str, str] | None = None, length: int | None = None) -> bytes:
    """A POST request; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Host": "localhost", "X-API-Key": KEY, "Content-Length": str(len(content) if length is None else length)}
    lines |= {"Content-Type": "application/json", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode() + content


def status(connection: socket.socket) -> int | None:
    answer = b""
    try:
        while chunk := connection.recv(65536):
            answer += chunk
    except ConnectionResetError:
        pass
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else None


@pytest.fixture(scope="module")
def server(checkpoint: Path, numbers_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all attacks, that allows little."""
    limits = {"DUBIO_MAX_BODY_BYTES": str(MAX_BODY), "DUBIO_BODY_SECONDS": "1", "DUBIO_MAX_ROWS": "64"}
    limits["DUBIO_HEAD_SECONDS"] = "1"
    root = tmp_path_factory.mktemp("repository")
    arguments = (str(numbers_checkpoint), str(checkpoint), "--model-repository", str(root))
    with Command().started(*arguments, DUBIO_API_KEYS=f"infer,review,admin,metrics:{KEY}", **limits) as running:
        yield Server(int(running.url.rsplit(":", 1)[1]), psutil.Process(running.process.pid))
        assert "Traceback" not in running.log, running.log[-5000:]


def binary(document: dict[str, Any], rest: bytes, length: str | None = None) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an infer request in binary."""
    head = json.dumps(document).encode()
    return head + rest, {"Inference-Header-Content-Length": str(len(head)) if length is None else length}


def in_binary(**change: Any) -> dict[str, Any]:
    tensor = {"name": "input", "shape": [1, 5], "datatype": "FP32", "parameters": {"binary_data_size": 20}}
    return {"inputs": [tensor | change]}


def infer(server: Server, document: dict[str, Any], rest: bytes | None = None, length: str | None = None) -> int | None:
    body, headers = (json.dumps(document).encode(), {}) if rest is None else binary(document, rest, length)
    return server.post("/v2/models/row/infer", body, headers)


def slow_bodies(server: Server) -> list[int | None]:
    """Twenty that never end; a good request does not wait for them."""
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(20)]
        for index, connection in enumerate(connections):
            connection.sendall(request(["/v1/predict", "/v2/models/row/infer"][index % 2], b'{"in', length=1000))
        assert server.good()
        return [status(connection) for connection in connections]


def trickle(server: Server) -> list[int | None]:
    """One byte at a time: what counts is the whole body's time."""
    with server.connect() as connection:
        connection.sendall(request("/v1/predict", length=1000))
        try:
            for _ in range(30):
                connection.sendall(b" ")
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return [status(connection)]


def gzip_bombs(server: Server) -> list[int | None]:
    """Two hundred mebibytes in two hundred kilobytes."""
    compressed = gzip.compress(bytes(200 * MEBIBYTE), 9)
    assert len(compressed) < MAX_BODY
    zipped = {"Content-Encoding": "gzip"}
    return [server.post(path, compressed, zipped) for path in ("/v1/predict", "/v2/models/row/infer")]


def damaged_compression(server: Server) -> list[int | None]:
    whole = gzip.compress(json.dumps(GOOD).encode())
    bodies = [whole[:-9], whole + b"more", b"not gzip", b""]
    statuses = [server.post("/v1/predict", body, {"Content-Encoding": "gzip"}) for body in bodies]
    return [*statuses, server.post("/v1/predict", whole, {"Content-Encoding": "gzip, gzip"})]


def large_bodies(server: Server) -> list[int | None]:
    """Declared, sent, and in chunks that do not say how many they will be."""
    chunk = f"{65536:x}\r\n".encode() + b" " * 65536 + b"\r\n"
    head = request("/v1/predict").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return [
        server.send(request("/v1/predict", length=10**15)),
        server.post("/v1/predict", b" " * (MAX_BODY + 1)),
        server.send(head + chunk * 16 + b"0\r\n\r\n"),
    ]


def truncated_and_trailing(server: Server) -> list[int | None]:
    return [
        infer(server, in_binary(), bytes(19)),
        infer(server, in_binary(), bytes(21)),
        infer(server, in_binary(), b""),
        infer(server, {"inputs": [TENSOR]}, b"more"),
        infer(server, in_binary(parameters={"binary_data_size": 2**62}), bytes(20)),
        infer(server, in_binary(parameters={"binary_data_size": -20}), bytes(20)),
        *(infer(server, in_binary(), bytes(20), length) for length in ("-1", "1e3", "99999999999999999999", "", "2")),
        server.post("/v2/models/row/infer", bytes(19), {"Inference-Header-Content-Length": "0"}),
    ]


def absurd_samples(server: Server) -> list[int | None]:
    values = [10**9, 10**30, -1, 0, 1, 2.5, 1e308, "many", True, [], {}]
    v1 = [server.post("/v1/predict", {**GOOD, "parameters": {"samples": value}}) for value in values]
    return v1 + [infer(server, {"inputs": [TENSOR], "parameters": {"samples": value}}) for value in values]


def deep_nesting(server: Server) -> list[int | None]:
    deep = 120_000
    bodies = [
        b"[" * 2 * deep,
        b"[" * deep + b"]" * deep,
        b'{"instances":' + b"[" * deep + b"]" * deep + b"}",
        b'{"a":' * 40_000,
        b'{"inputs":[{"name":"input","shape":[1,5],"datatype":"FP32","data":' + b"[" * deep + b"]" * deep + b"}]}",
    ]
    paths = ("/v1/predict", "/v2/models/row/infer", "/v2/repository/index")
    return [server.post(path, body) for body in bodies for path in paths]


def shapes(server: Server) -> list[int | None]:
    """Overflowing, negative, empty, endless."""
    absurd: list[Any] = [
        [2**62, 5], [2**64, 5], [10**400, 5], [4294967296, 4294967296], [-1, 5], [-1, -5], [1, -5], [0, 5], [0],
        [], [5], [1, 5, 1], [1.0, 5], [True, 5], ["1", 5], [None, 5], [[1], 5], [1] * 50_000, 5, {}, [65, 5],
    ]  # fmt: skip
    asked = [infer(server, {"inputs": [{**TENSOR, "shape": shape}]}) for shape in absurd]
    return asked + [infer(server, in_binary(shape=shape), bytes(20)) for shape in absurd]


def numbers(server: Server) -> list[int | None]:
    """What is no finite number, or no JSON at all."""
    rows = [b"NaN", b"Infinity", b"1e999", b"-1e999", b"1e39", b'"1"', b"null", b"[1]", b"1" * 100_000, b"\xff"]
    v1 = [server.post("/v1/predict", b'{"instances":[[1,2,3,4,' + row + b"]]}") for row in rows]
    datatypes = ["BYTES", "FP16", "INT64", "fp32", "", None, 5]
    return [
        *v1,
        *(server.post("/v1/predict", body) for body in (b"", b"null", b"[]", b'{"instances":[[1,', b"\x00" * 100)),
        infer(server, in_binary(), b"\x00\x00\xc0\x7f" * 5),
        *(infer(server, in_binary(datatype=datatype), bytes(20)) for datatype in datatypes),
    ]


def outputs(server: Server) -> list[int | None]:
    wanted: list[Any] = [
        [{"name": "label"}] * 5000,
        [{"name": f"x{i}"} for i in range(5000)],
        [{"name": "x" * 100_000}],
        [{"name": "probabilities", "parameters": {"classification": -1}}],
        [None],
        {},
        "label",
    ]
    return [infer(server, {"inputs": [TENSOR], "outputs": each}) for each in wanted]


def names(server: Server) -> list[int | None]:
    """Out of the directory, and out of what a name may be."""
    absurd = [
        "..",
        "%2e%2e",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "a%00b",
        "%ff",
        "x" * 10_000,
        "a%0d%0ab",
    ]
    paths = ["/v1/models/{}/predict", "/v2/models/{}/infer", "/v2/models/row/versions/{}/infer"]
    paths += ["/v2/repository/models/{}/load", "/v2/repository/models/{}/unload"]
    return [server.post(path.format(name)) for name in absurd for path in paths]


def protocol_errors(server: Server) -> list[int | None]:
    """What is no HTTP may be closed without a word."""
    good = request("/v1/predict", GOOD)
    lines = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200),  # a TLS greeting
        b"GET\r\n\r\n",
        b"A" * 300_000,
        good.replace(b"Content-Length: ", b"Content-Length: -"),
        good.replace(b"Content-Length: ", b"Content-Length: 1\r\nContent-Length: "),
        good.replace(b"Connection: close", b"Transfer-Encoding: chunked\r\nConnection: close"),
        request("/v1/predict").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"FFFFFFFFFFFFFFFFFF\r\n",
    ]
    return [answer for answer in map(server.send, lines) if answer is not None]


def large_heads(server: Server) -> list[int | None]:
    """One long line, one without an end, and fifty thousand lines; thirty megabytes, or as much as is taken."""
    line = b"POST /v1/predict HTTP/1.1\r\nX-Long: "
    lines = b"POST /v1/predict HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % index for index in range(50_000))
    trailer = request("/v1/predict").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"0\r\nX-Long: "
    endless = b"a" * 30 * MEBIBYTE
    heads = [line + b"a" * 100_000 + b"\r\n\r\n", line + endless, lines, lines + b"\r\n", b"POST /" + endless]
    return [*map(server.send, heads), server.send(trailer + endless)]


def slow_heads(server: Server) -> list[int | None]:
    """Most send a part and no more, one goes on byte by byte; a good request does not wait for them."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nX-Long: "
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(20)]
        for index, connection in enumerate(connections):
            connection.sendall(head[: len(head) - index])
        assert server.good()
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(30):
                connections[0].sendall(b"a")
                time.sleep(0.05)
        return [status(connection) for connection in connections]


def pipelines(server: Server) -> list[int | None]:
    """Thousands of requests on one connection, without waiting for an answer."""
    many = request("/v1/predict", GOOD).replace(b"Connection: close\r\n", b"") * 5000
    return [answer for answer in (server.send(many) for _ in range(3)) if answer not in (None, 200)]


def disconnects(server: Server) -> list[int | None]:
    """Callers who leave in the middle of the request, or before the answer."""
    for data in (request("/v1/predict", b"{", length=9999), request("/v1/predict", GOOD), b"POST /v1"):
        for _ in range(20):
            with server.connect() as connection:
                connection.sendall(data)
    return []


ATTACKS: list[Callable[[Server], list[int | None]]] = [
    slow_bodies, trickle, gzip_bombs, damaged_compression, large_bodies, truncated_and_trailing, absurd_samples,
    deep_nesting, shapes, numbers, outputs, names, protocol_errors, large_heads, slow_heads, pipelines, disconnects,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_refused_and_the_next_is_answered(server: Server, attack: Callable[[Server], list[int | None]]) -> None:
    answers = attack(server)
    assert [answer for answer in answers if answer is None or not 400 <= answer < 500] == []
    assert server.good()


def test_two_hundred_at_once_are_all_answered(server: Server) -> None:
    data = request("/v1/predict", GOOD)
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(200)]
        for connection in connections:
            connection.sendall(data[:-10])
        assert server.good()
        for connection in connections:
            connection.sendall(data[-10:])
        assert [status(connection) for connection in connections] == [200] * 200
    assert server.good()


def test_two_hundred_who_say_nothing_are_in_nobodys_way(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(server.connect())
        assert server.good()
    assert server.good()


@pytest.mark.parametrize("attack", [large_heads, slow_heads], ids=lambda attack: attack.__name__)
def test_heads_are_bounded_in_every_worker(
    numbers_checkpoint: Path, attack: Callable[[Server], list[int | None]], command: Command
) -> None:
    limits = {"DUBIO_HEAD_SECONDS": "1", "DUBIO_API_KEYS": f"infer:{KEY}"}
    with command.started(str(numbers_checkpoint), "--workers", "2", **limits) as running:
        server = Server(int(running.url.rsplit(":", 1)[1]), psutil.Process(running.process.pid))
        statuses = attack(server)
        assert set(statuses) <= {408, 431}, statuses
        assert server.post("/v1/predict", GOOD) == 200


def test_memory_and_descriptors_do_not_grow(server: Server) -> None:
    """All attacks once, so that every cache and pool has what it keeps; then all of them again, twice."""
    for attack in ATTACKS:
        attack(server)
    before = server.process.memory_info().rss
    for attack in ATTACKS * 2:
        attack(server)
    assert server.good()
    assert server.process.memory_info().rss < before + 24 * MEBIBYTE
    deadline = time.monotonic() + 10
    while server.callers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.callers() == []


def test_refusals_are_counted(server: Server) -> None:
    """Whoever runs the service sees the attack."""
    assert server.send(b"A" * 100_000 + b"\r\n\r\n") == 400
    assert server.post("/v1/predict", {"instances": []}) == 422
    with server.connect() as connection:
        connection.sendall(
            f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nConnection: close\r\n\r\n".encode()
        )
        text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    for reason in ("invalid_request", "malformed_http"):
        assert re.search(rf'^dubio_refused_total{{.*reason="{reason}".*}} [1-9]', text, re.MULTILINE), text[:2000]
