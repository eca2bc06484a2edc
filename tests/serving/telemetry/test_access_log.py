from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from dubio.serving.telemetry.access_log import AccessLog, RequestRecord

RECORD = RequestRecord(
    request_id="r-1",
    client="127.0.0.1",
    method="POST",
    route="/v1/predict",
    path="/v1/predict",
    status=200,
    seconds=0.0015,
    model="m",
    version="1",
    rows=2,
)


def test_every_request_becomes_one_line_of_json() -> None:
    reader, writer = os.pipe()
    log = AccessLog(writer)
    for number in range(100):
        log.write(RECORD._replace(request_id=f"r-{number}", path="/a\nb" + "x" * 500))
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
    lines: list[bytes] = []

    def read() -> None:
        with os.fdopen(reader, "rb") as file:
            lines.extend(file)

    reading = threading.Thread(target=read)
    reading.start()
    for number in range(500):
        for worker, log in enumerate(logs):
            log.write(RECORD._replace(request_id=f"{worker}-{number}"))
    for log in logs:
        log.close()
    os.close(writer)
    reading.join()
    ids = [json.loads(line)["request_id"] for line in lines]
    for worker in range(3):
        assert [name for name in ids if name.startswith(f"{worker}-")] == [f"{worker}-{i}" for i in range(500)]


def test_a_reader_that_stands_still_costs_lines_but_neither_time_nor_memory() -> None:
    reader, writer = os.pipe()
    log = AccessLog(writer, most_waiting=50, flush_seconds=0.01)
    for _ in range(2000):  # more than a pipe and the queue hold together
        log.write(RECORD)
    log.close()  # returns
    content = b""
    os.set_blocking(reader, False)
    while is_writing() or not content.endswith(b"\n"):
        try:
            content += os.read(reader, 1 << 16)
        except BlockingIOError:
            continue
    assert 50 <= len(content.splitlines()) < 2000
    os.close(reader)
    os.close(writer)


def is_writing() -> bool:
    return any(thread.name == "dubio-access-log" for thread in threading.enumerate())


def test_lines_that_were_lost_are_counted_in_the_next() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):  # until the pipe is full
        while True:
            os.write(writer, b"\n" * 4096)
    os.set_blocking(writer, True)
    log = AccessLog(writer, most_waiting=2)
    written = 100
    for _ in range(written):  # the first of them wait, in a piece that cannot be written and behind it
        log.write(RECORD)
    with os.fdopen(reader) as file:
        lines = [json.loads(next(line for line in file if line != "\n"))]  # which empties the pipe
        while "lines_lost" not in lines[-1]:
            log.write(RECORD)
            written += 1
            lines.append(json.loads(next(file)))
        log.close()
        os.close(writer)
        lines += map(json.loads, file)
    assert len(lines) + sum(line.get("lines_lost", 0) for line in lines) + log._lost == written


def test_a_full_disk_ends_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """What is written to /dev/full meets what a full disk says; then a pipe takes its place."""
    caplog.set_level("INFO")
    descriptor = os.open("/dev/full", os.O_WRONLY)
    log = AccessLog(descriptor, most_waiting=3, retry_seconds=0.01)
    log.write(RECORD._replace(request_id="first"))
    while "No space left on device" not in caplog.text:
        time.sleep(0.01)
    written = [log.write(RECORD._replace(request_id=f"r-{number}")) for number in range(10)]
    time.sleep(0.1)  # in which it is tried again
    assert sum(written) == 3
    reader, writer = os.pipe()
    os.dup2(writer, descriptor)
    os.close(writer)
    with os.fdopen(reader) as file:
        waiting = (line for line in file if line != "\n")
        assert [json.loads(next(waiting))["request_id"] for _ in range(4)] == ["first", "r-0", "r-1", "r-2"]
        log.write(RECORD._replace(request_id="last"))
        log.write(RECORD)
        log.close()
        os.close(descriptor)
        lines = [json.loads(line) for line in waiting]
    assert [(line["request_id"], line.get("lines_lost")) for line in lines] == [("last", 7), ("r-1", None)]
    assert caplog.text.count("Cannot write the access log") == 1
    assert caplog.text.count("can be written again") == 1


def test_a_log_that_cannot_be_written_ends_with_the_service(caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = AccessLog(writer, retry_seconds=1000)
    log.write(RECORD)
    while "Broken pipe" not in caplog.text:
        time.sleep(0.01)
    log.write(RECORD)
    log.close()
    os.close(writer)
    assert not is_writing()
    assert "at least 2" in caplog.text


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    log = AccessLog(writer)
    for number in range(1000):  # more than the pipe holds
        log.write(RECORD._replace(request_id=f"r-{number}"))
    time.sleep(0.1)
    with os.fdopen(reader) as file:
        for number in range(1000):
            assert json.loads(next(file))["request_id"] == f"r-{number}"
    log.close()
    os.close(writer)


@pytest.mark.slow
def test_lines_that_a_full_disk_cut_short_are_written_again(command: Any, numbers_checkpoint: Path) -> None:
    """A limit on the size of files is what a process has of its own of a disk's size."""
    with command.started(str(numbers_checkpoint), "--access-log") as service:
        url, process = service.url, psutil.Process(service.process.pid)

        def ask(name: str) -> None:
            assert httpx.get(f"{url}/v1/models", headers={"X-Request-Id": name}).status_code == 200

        def wait_for(names: list[str]) -> None:
            while not all(f'"{name}"' in service.output for name in names):
                time.sleep(0.02)

        before = [f"before-{number}" for number in range(20)]  # so that its own log has room
        for name in before:
            ask(name)
        wait_for(before)
        # The process writes to its standard output at this position only, so that half a line is left there.
        process.rlimit(resource.RLIMIT_FSIZE, (len(service.output) + 100, resource.RLIM_INFINITY))
        during = [f"during-{number}" for number in range(5)]
        for name in during:
            ask(name)
        service.wait_for("Cannot write the access log, so its lines wait: File too large.")
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200
        assert "dubio_access_log_lines_lost_total 0.0" in httpx.get(f"{url}/metrics").text
        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        ask("after")
        wait_for(["after"])
        assert service.finish(signal.SIGTERM) == 0
        assert "can be written again" in service.log
        lines = service.output.splitlines()
    names, broken = [], 0
    for line in lines:
        try:
            names.append(json.loads(line)["request_id"])
        except ValueError:
            broken += 1
    assert [name for name in names if not re.fullmatch("[0-9a-f]{32}", name)] == [*before, *during, "after"]
    assert broken == 1
