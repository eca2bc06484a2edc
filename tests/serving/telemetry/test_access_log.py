from __future__ import annotations

import json
import os
import threading
from typing import Any

from dubio.serving.telemetry import access_log as module
from dubio.serving.telemetry.access_log import AccessLog

LINE: dict[str, Any] = {
    "request_id": "r-1",
    "client": "127.0.0.1",
    "method": "POST",
    "route": "/v1/predict",
    "path": "/v1/predict",
    "status": 200,
    "seconds": 0.0015,
    "model": "m",
    "version": "1",
    "rows": 2,
    "refused": None,
}


def test_every_request_becomes_one_line_of_json() -> None:
    reader, writer = os.pipe()
    log = AccessLog(writer)
    for number in range(100):
        log.write(**{**LINE, "request_id": f"r-{number}", "path": "/a\nb" + "x" * 500})
    log.close()
    os.close(writer)
    with os.fdopen(reader) as file:
        lines = [json.loads(line) for line in file]
    assert [line["request_id"] for line in lines] == [f"r-{number}" for number in range(100)]
    assert lines[0]["duration_ms"] == 1.5
    assert lines[0]["time"].endswith("+00:00")
    assert len(lines[0]["path"]) == 200
    assert {"client", "method", "route", "status", "model", "version", "rows", "refused"} <= set(lines[0])


def test_lines_are_written_in_pieces_that_do_not_mix() -> None:
    reader, writer = os.pipe()
    logs = [AccessLog(writer) for _ in range(3)]
    found: list[bytes] = []

    def read() -> None:
        with os.fdopen(reader, "rb") as file:
            found.extend(file)

    reading = threading.Thread(target=read)
    reading.start()
    for number in range(500):
        for worker, log in enumerate(logs):
            log.write(**{**LINE, "request_id": f"{worker}-{number}"})
    for log in logs:
        log.close()
    os.close(writer)
    reading.join()
    ids = [json.loads(line)["request_id"] for line in found]
    for worker in range(3):
        assert [name for name in ids if name.startswith(f"{worker}-")] == [f"{worker}-{i}" for i in range(500)]


def test_a_reader_that_stands_still_costs_lines_but_neither_time_nor_memory(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 50)
    monkeypatch.setattr(module, "_FLUSH_SECONDS", 0.01)
    reader, writer = os.pipe()
    log = AccessLog(writer)
    for _ in range(2000):  # more than a pipe and the queue hold together
        log.write(**LINE)
    log.close()  # returns
    found = b""
    os.set_blocking(reader, False)
    while log._writer.is_alive() or not found.endswith(b"\n"):
        try:
            found += os.read(reader, 1 << 16)
        except BlockingIOError:
            continue
    assert 50 <= len(found.splitlines()) < 2000
    os.close(reader)
    os.close(writer)


def test_lines_that_were_lost_are_counted_in_the_next(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 0)
    reader, writer = os.pipe()
    log = AccessLog(writer)
    log.write(**LINE)
    log.write(**LINE)
    monkeypatch.setattr(module, "_MOST_WAITING", 10)
    log.write(**LINE)
    log.close()
    os.close(writer)
    with os.fdopen(reader) as file:
        [line] = [json.loads(line) for line in file]
    assert line["lines_lost"] == 2


def test_a_closed_pipe_ends_the_log_and_nothing_else() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = AccessLog(writer)
    log.write(**LINE)
    log.write(**LINE)
    log.close()
    os.close(writer)
