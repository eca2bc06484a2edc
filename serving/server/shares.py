"""How many connections each worker has: a board in shared memory, for workers to take even shares."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

_BYTES = 8
# What stands in the place of a worker that takes no connections: one that starts, stops or is gone.
_AWAY = -1


class Shares:
    """The board, and this worker's place on it."""

    def __init__(self, folder: Path, workers: int, worker: int) -> None:
        """Open the board of so many `workers` in `folder`, at the place of `worker`, which is away at first."""
        descriptor = os.open(folder / "shares", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, workers * _BYTES)
            self._memory = mmap.mmap(descriptor, workers * _BYTES)
        finally:
            os.close(descriptor)
        self._board = memoryview(self._memory).cast("q")
        self._worker = worker
        self.leave()

    def show(self, connections: int) -> None:
        """Say how many connections this worker has."""
        self._board[self._worker] = connections

    def leave(self) -> None:
        """Say that this worker takes no connections for now."""
        self._board[self._worker] = _AWAY

    def is_ahead(self, connections: int) -> bool:
        """Whether some other worker has fewer."""
        return any(_AWAY < other < connections for other in self._board)
