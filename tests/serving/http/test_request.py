"""Bodies, and callers that leave or stay."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request

from dubio.serving.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding
from dubio.serving.http.request import cancel_on_disconnect, choose, compress, inflate, offload_if, read_encoding


def test_a_body_that_never_comes_is_given_up(serve: Callable, settings: Callable, checkpoint: Path) -> None:
    with serve(settings(models=(str(checkpoint),), body_seconds=0.2)) as base:
        with socket.create_connection(("127.0.0.1", httpx.URL(base).port), timeout=10) as raw:
            raw.sendall(b'POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"inst')
            answer = raw.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert httpx.get(f"{base}/v2/health/ready").status_code == 200


def test_a_caller_who_leaves_is_no_error(serve: Callable, settings: Callable, checkpoint: Path) -> None:
    with serve(settings(models=(str(checkpoint),))) as base:
        with socket.create_connection(("127.0.0.1", httpx.URL(base).port), timeout=10) as raw:
            raw.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        while 'status="499"' not in (metrics := httpx.get(f"{base}/metrics").text):
            pass
        assert not re.search(r'status="500".*} [1-9]', metrics)


BODY = b'{"inputs": []}' * 100
PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", PACKERS)
def test_what_others_pack_is_inflated_and_what_we_pack_others_unpack(encoding: str) -> None:
    assert inflate(PACKERS[encoding](BODY), encoding=encoding, max_bytes=len(BODY)) == BODY
    unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress}[encoding]
    packed = compress(BODY, encoding=encoding)
    assert unpack(packed) == BODY
    assert len(packed) < len(BODY)


@pytest.mark.parametrize("encoding", PACKERS)
def test_the_cap_is_exact(encoding: str) -> None:
    with pytest.raises(BodyTooLarge, match=f"at most {len(BODY) - 1} bytes"):
        inflate(PACKERS[encoding](BODY), encoding=encoding, max_bytes=len(BODY) - 1)


def test_a_bomb_takes_no_more_memory_than_the_cap() -> None:
    bomb = zlib.compress(bytes(100_000_000), 9)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            inflate(bomb, encoding="deflate", max_bytes=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", PACKERS)
def test_every_truncation_is_noticed(encoding: str) -> None:
    packed = PACKERS[encoding](BODY)
    for length in range(len(packed)):
        with pytest.raises(InvalidRequest):
            inflate(packed[:length], encoding=encoding, max_bytes=10_000)


@pytest.mark.parametrize(
    ("header", "encoding"), [(None, None), ("identity", None), ("gzip", "gzip"), (" Deflate ", "deflate")]
)
def test_encodings(header: str | None, encoding: str | None) -> None:
    assert read_encoding(header) == encoding


@pytest.mark.parametrize("header", ["br", "gzip, deflate", "x" * 1000])
def test_other_encodings_are_refused(header: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="gzip or deflate"):
        read_encoding(header)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br", None),
        ("*", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("GZIP, Deflate, br", "gzip"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.2, deflate;q=0.5", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=1.0", "gzip"),
        ("gzip;q=nonsense", None),
        ("gzip;q=nan", None),
    ],
)
def test_the_answers_encoding_is_what_the_caller_prefers(accept: str | None, chosen: str | None) -> None:
    assert choose(accept) == chosen


def request(messages: asyncio.Queue[dict[str, object]]) -> Request:
    return Request({"type": "http", "method": "POST", "headers": []}, receive=messages.get)


def test_the_block_is_cancelled_when_the_caller_leaves():
    async def main():
        messages: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        cancelled = asyncio.Event()

        async def work():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async def handler():
            async with cancel_on_disconnect(request(messages)):
                await work()

        task = asyncio.create_task(handler())
        await asyncio.sleep(0.05)
        assert not task.done()
        messages.put_nowait({"type": "http.disconnect"})
        with pytest.raises(ClientDisconnect):
            await task
        assert cancelled.is_set()

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [0.0, 0.06])
def test_a_caller_who_stays_gets_the_answer_and_nothing_is_left_behind(seconds):
    async def main():
        async with cancel_on_disconnect(request(asyncio.Queue())):
            await asyncio.sleep(seconds)
            answer = "answer"
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) == 1
        return answer

    assert asyncio.run(main()) == "answer"


def test_a_cancellation_from_elsewhere_stays_one():
    async def main():
        async def handler():
            async with cancel_on_disconnect(request(asyncio.Queue())):
                await asyncio.sleep(60)

        task = asyncio.create_task(handler())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_errors_of_the_block_come_through():
    async def main():
        with pytest.raises(KeyError):
            async with cancel_on_disconnect(request(asyncio.Queue())):
                raise KeyError("x")

    asyncio.run(main())


def test_long_work_leaves_the_loops_thread_and_short_work_does_not() -> None:
    here = threading.get_ident()
    assert asyncio.run(offload_if(False, threading.get_ident)) == here
    assert asyncio.run(offload_if(True, threading.get_ident)) != here
