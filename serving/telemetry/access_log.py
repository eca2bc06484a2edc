"""The access log: a line of JSON for every request. It never holds a body, a query or a header, and so no key."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import NamedTuple

import orjson

_log = logging.getLogger("dubio")

# POSIX writes this much to a pipe in one piece, so that the lines of several workers never mix.
_PIECE = 4096
_LONGEST_PATH = 200
_LONGEST_METHOD = 20


class RequestRecord(NamedTuple):
    """What one request was, for whoever counts.

    Attributes:
        request_id: The caller's name for it, or one of ours.
        method: As sent; `gRPC` for a call over it.
        path: As sent; unbounded.
        status: Of the answer; over gRPC that which the same error has over HTTP.
        seconds: From the request's head to the end of its answer.
        client: The caller's address, if it has one.
        route: The pattern that matched the path; None if none did.
        model: Name of the loaded model that was asked; None if none was.
        version: Of that model.
        rows: How many instances were asked.
        refused: Why it got an error, in a word; None if it did not.
        code: gRPC's status; None over HTTP.
    """

    request_id: str
    method: str
    path: str
    status: int
    seconds: float
    client: str | None = None
    route: str | None = None
    model: str | None = None
    version: str | None = None
    rows: int | None = None
    refused: str | None = None
    code: str | None = None


class AccessLog:
    """Writes lines to a file descriptor, from a thread of its own.

    Whoever reads them may stand still, and the disk may be full; that neither delays a request nor fills the memory.
    Lines wait until they can be written. Behind a line that was cut short the next one begins anew.

    Args:
        descriptor: To write to; it stays open.
        most_waiting: How many lines may wait; further ones are lost.
        retry_seconds: How long to wait before writing is tried again.
        flush_seconds: How long closing waits for the reader.
    """

    def __init__(
        self, descriptor: int, *, most_waiting: int = 10_000, retry_seconds: float = 1.0, flush_seconds: float = 2.0
    ) -> None:
        self._descriptor = descriptor
        self._most_waiting = most_waiting
        self._retry_seconds = retry_seconds
        self._flush_seconds = flush_seconds
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._lost = 0
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write, name="dubio-access-log", daemon=True)
        self._writer.start()

    def write(self, request: RequestRecord) -> bool:
        """Queue one line; when too many wait, drop it and say how many were lost in the next one.

        Returns:
            Whether it was queued.
        """
        if self._lines.qsize() >= self._most_waiting:
            self._lost += 1
            return False
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **request._asdict()}
        line["method"] = request.method[:_LONGEST_METHOD]
        line["path"] = request.path[:_LONGEST_PATH]
        line["duration_ms"] = round(1000 * line.pop("seconds"), 3)
        if request.code is None:
            del line["code"]
        if self._lost:
            line["lines_lost"] = self._lost
        self._lines.put(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self._lost = 0
        return True

    def close(self) -> None:
        """Write what waits, but do not wait for a reader that stands still."""
        self._lines.put(None)
        self._closing.set()
        self._writer.join(self._flush_seconds)
        if self._writer.is_alive() or not self._lines.empty():
            _log.warning("The last lines of the access log are lost, at least %d.", self._lines.qsize())

    def _write(self) -> None:
        for piece in self._pieces():
            written, failed = 0, False
            while written < len(piece):
                try:
                    written += os.write(self._descriptor, piece[written:])
                except BlockingIOError:  # somebody made the pipe so; a piece is written as a whole or not at all
                    select.select([], [self._descriptor], [])
                except OSError as error:
                    if self._closing.is_set():
                        return
                    if not failed:
                        _log.warning("Cannot write the access log, so its lines wait: %s.", error.strerror)
                        failed = True
                    # What was written last, here or by another worker, may be half a line.
                    piece = b"\n" + piece[piece.rfind(b"\n", 0, written) + 1 :].lstrip(b"\n")
                    written = 0
                    self._closing.wait(self._retry_seconds)
            if failed:
                _log.info("The access log can be written again.")

    def _pieces(self) -> Iterator[bytes]:
        """Whole lines, as many as fit into one write."""
        piece = b""
        while (line := self._lines.get()) is not None:
            if piece and len(piece) + len(line) > _PIECE:
                yield piece
                piece = b""
            piece += line
            if self._lines.empty():
                yield piece
                piece = b""
        yield piece
