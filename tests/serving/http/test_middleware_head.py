"""HEAD, on every route that has GET, over real sockets."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

# Not in the description.
PAGES = ["/", "/docs", "/redoc", "/openapi.json", "/v2/", "/static/page.js", "/static/swagger-ui.css"]
# These count, so that they are longer from one answer to the next.
COUNTING = re.compile(r"/metrics|.*/stats")
KEY = "some-secret-0123456789"


@pytest.fixture(scope="module")
def service(command: Any, numbers_checkpoint: Path) -> Iterator[Any]:
    """A service with one model, as it is run; the log of its requests goes to the standard output."""
    with command.started(str(numbers_checkpoint), "--access-log") as running:
        yield running


def exchange(url: str, method: str, path: str, *headers: str) -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and everything behind them until the connection is closed."""
    address = urlsplit(url)
    head = "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {address.netloc}", "Connection: close", *headers])
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    lines, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = lines.decode().split("\r\n")
    named = dict(field.lower().split(": ", 1) for field in fields)
    return status, {name: value for name, value in named.items() if name not in ("date", "x-request-id")}, body


def test_it_is_get_without_a_body(service: Any) -> None:
    paths = httpx.get(f"{service.url}/openapi.json").json()["paths"]
    gets = {path: operations["get"]["responses"] for path, operations in paths.items() if "get" in operations}
    # Without a store and a shadow some have nothing to show.
    shown = [path for path, answers in gets.items() if "409" not in answers and not path.endswith("/comparison")]
    described = [path.format(name="row", version="1") for path in shown]
    assert len(described) > 10
    for path in [*described, *PAGES]:
        head, get = exchange(service.url, "HEAD", path), exchange(service.url, "GET", path)
        assert get[0] == "HTTP/1.1 200 OK", path
        assert get[2], path
        assert head[2] == b"", path
        assert head[0] == get[0], path
        if COUNTING.match(path):
            assert head[1].pop("content-length")
            del get[1]["content-length"]
        assert head[1] == get[1], path


def test_where_there_is_no_get_there_is_no_head(service: Any) -> None:
    status, headers, body = exchange(service.url, "HEAD", "/v1/predict")
    assert (status, headers["allow"], body) == ("HTTP/1.1 405 Method Not Allowed", "post", b"")
    assert exchange(service.url, "DELETE", "/v1/models")[1]["allow"] == "get, head"
    status, _, body = exchange(service.url, "HEAD", "/nowhere")
    assert (status, body) == ("HTTP/1.1 404 Not Found", b"")


def test_it_is_logged_as_it_was_sent_and_counted_by_its_route(service: Any) -> None:
    exchange(service.url, "HEAD", "/v2/models/row/ready")
    until = time.monotonic() + 30
    while '"method":"HEAD"' not in service.output:  # a thread of its own writes it
        assert time.monotonic() < until
        time.sleep(0.01)
    assert 'route="/v2/models/{name}/ready"' in exchange(service.url, "GET", "/metrics")[2].decode()


def test_it_wants_the_key_that_get_wants(serve: Any, settings: Any, numbers_checkpoint: Path) -> None:
    with serve(settings(models=(str(numbers_checkpoint),), api_keys=f"infer:{KEY}")) as url:
        assert exchange(url, "HEAD", "/v2/health/ready")[0] == "HTTP/1.1 200 OK"
        for path, status in [("/v1/models", "200 OK"), ("/metrics", "403 Forbidden")]:
            assert exchange(url, "HEAD", path)[0] == "HTTP/1.1 401 Unauthorized"
            assert exchange(url, "HEAD", path, f"X-API-Key: {KEY}")[0] == f"HTTP/1.1 {status}"
