from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import httpx


def test_a_body_that_never_comes_is_given_up(serve: Callable, settings: Callable, checkpoint: Path) -> None:
    with serve(settings(models=(str(checkpoint),), body_seconds=0.2)) as base:
        with socket.create_connection(("127.0.0.1", httpx.URL(base).port), timeout=10) as raw:
            raw.sendall(b'POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"inst')
            answer = raw.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert httpx.get(f"{base}/v2/health/ready").status_code == 200


def test_a_caller_who_leaves_is_no_error(serve: Callable, settings: Callable, checkpoint: Path) -> None:
    with serve(settings(models=(str(checkpoint),))) as base:
        with socket.create_connection(("127.0.0.1", httpx.URL(base).port), timeout=10) as raw:
            raw.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        while 'status="499"' not in (metrics := httpx.get(f"{base}/metrics").text):
            pass
        assert 'status="500"' not in metrics
