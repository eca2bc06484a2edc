from __future__ import annotations

import contextlib
import json
import os
import threading

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
    assert len(lines) + sum(line.get("lines_lost", 0) for line in lines) == written


def test_a_closed_pipe_ends_the_log_and_nothing_else() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = AccessLog(writer)
    log.write(RECORD)
    log.write(RECORD)
    log.close()
    os.close(writer)
