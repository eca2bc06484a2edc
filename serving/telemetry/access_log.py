"""The access log: a line of JSON for every request. It never holds a body, a query or a header, and so no key."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from queue import SimpleQueue

import orjson

# Whoever reads the log may stand still; that must neither stop the service nor fill its memory.
_MOST_WAITING = 10_000
# POSIX writes this much to a pipe in one piece, so that the lines of several workers never mix.
_PIECE = 4096
_FLUSH_SECONDS = 2.0
_LONGEST_PATH = 200


class AccessLog:
    """Writes lines to a file descriptor, from a thread of its own: a slow reader delays no request."""

    def __init__(self, descriptor: int) -> None:
        """Write to `descriptor`, which stays open."""
        self._descriptor = descriptor
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._lost = 0
        self._writer = threading.Thread(target=self._write, name="dubio-access-log", daemon=True)
        self._writer.start()

    def write(
        self,
        *,
        request_id: str,
        client: str | None,
        method: str,
        route: str | None,
        path: str,
        status: int,
        seconds: float,
        model: str | None,
        version: str | None,
        rows: int | None,
        refused: str | None,
    ) -> None:
        """Queue one line; when too many wait, drop it and say how many were lost in the next one."""
        if self._lines.qsize() >= _MOST_WAITING:
            self._lost += 1
            return
        lost, self._lost = self._lost, 0
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "client": client,
            "method": method[:20],
            "route": route,
            "path": path[:_LONGEST_PATH],
            "status": status,
            "duration_ms": round(1000 * seconds, 3),
            "model": model,
            "version": version,
            "rows": rows,
            "refused": refused,
        }
        if lost:
            line["lines_lost"] = lost
        self._lines.put(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Write what waits, but do not wait for a reader that stands still."""
        self._lines.put(None)
        self._writer.join(_FLUSH_SECONDS)

    def _write(self) -> None:
        try:
            for piece in self._pieces():
                while piece:
                    piece = piece[os.write(self._descriptor, piece) :]
        except OSError:  # nobody reads any more, or the disk is full: serving goes on without a log
            return

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
