"""Numbers that only ever grow, kept so that several processes can be added up at any moment.

Each process owns one file, mapped into memory: how much of it is used, an index that says which series stands where,
and the numbers. It alone writes it, and whoever is asked for the metrics reads all of them. All of it is allocated at
the start, so that counting needs nothing later: a disk that is full meanwhile ends no process and fails no request. A
file outlives its process, and the process that takes its place goes on counting in it, so that no counter ever falls.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
from collections import Counter
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dubio.serving.errors import UnusableFolder

_log = logging.getLogger("dubio")

# The process, the bytes of the index that are used, and the process that computes for it.
_HEADER = 3
# Of the series that metrics may have, with labels of a usual length.
_INDEX_BYTES = 1 << 20
NUMBERS = 1 << 16
"""As many float64 as all metrics may have together."""
_FIRST_NUMBER = 8 * _HEADER + _INDEX_BYTES
_SIZE = _FIRST_NUMBER + 8 * NUMBERS
MOST_SERIES = 500
"""Far more than a service has models; a service that is reloaded for months meets new versions all the time, though."""

_SUFFIX = ".metrics"

Labels = tuple[str, ...]
# A line of the index: metric, labels, size.
Entry = tuple[str, list[str], int]
# The numbers of each series, by metric and labels: a counter has one, a histogram one a bucket and the sum.
Blocks = dict[tuple[str, Labels], NDArray[np.float64]]


class MmapStore:
    """The blocks of this process, and of its siblings if there are any. Not thread-safe: `Metrics` holds a lock.

    Args:
        folder: That several processes share; None to count in memory.
        worker: This process's number among them.
        most_series: Of one metric in one process; further ones are counted under the label "other".

    Attributes:
        own: The blocks of this process, by metric and labels.

    Raises:
        UnusableFolder: The folder has no room.
    """

    def __init__(self, folder: Path | None = None, worker: int = 0, most_series: int = MOST_SERIES) -> None:
        self._folder = folder
        self._file = f"{worker}{_SUFFIX}"
        self._most_series = most_series
        memory = mmap.mmap(-1, _SIZE) if folder is None else map_file(folder / self._file, _SIZE)
        self._header = np.frombuffer(memory, np.int64, _HEADER)
        self._index = memoryview(memory)[8 * _HEADER : _FIRST_NUMBER]
        self._array = np.frombuffer(memory, offset=_FIRST_NUMBER)
        entries = _entries(bytes(self._index[: self._header[1]]))
        self.own: Blocks = _blocks(entries, self._array)
        self._used = sum(size for _, _, size in entries)
        self._series = Counter(metric for metric, _ in self.own)

    def sign(self, computing: int | None = None) -> None:
        """Say that this process is the one that counts here, and which one, if another, computes for it."""
        self._header[0], self._header[2] = os.getpid(), computing or 0

    def block(self, metric: str, labels: Labels, size: int) -> NDArray[np.float64]:
        """The block of a series, of `size` numbers; all zero when it is new."""
        block = self.own.get((metric, labels))
        if block is None and self._series[metric] >= self._most_series:
            labels = ("other",) * len(labels)
            block = self.own.get((metric, labels))
        if block is None:
            block = self.own[metric, labels] = self._register(metric, labels, size)
            self._series[metric] += 1
        return block

    def _register(self, metric: str, labels: Labels, size: int) -> NDArray[np.float64]:
        entry = json.dumps([metric, labels, size]).encode() + b"\n"
        begin, first = int(self._header[1]), self._used
        if begin + len(entry) > _INDEX_BYTES or first + size > NUMBERS:
            _log.warning("The labels of all metrics are too long: %s%s is shown by this worker only.", metric, labels)
            return np.zeros(size)
        self._index[begin : begin + len(entry)] = entry
        self._header[1] += len(entry)  # last, so that nobody reads, and no process inherits, half an entry
        self._used += size
        return self._array[first : first + size]

    def total(self) -> Blocks:
        """Every series, added up over all processes."""
        sums: Blocks = {series: values.copy() for series, values in self.own.items()}
        for path in self._files():
            if path.name != self._file:
                for series, values in _read(path).items():
                    sums[series] = sums[series] + values if series in sums else values
        return sums

    def processes(self) -> list[tuple[dict[str, str], int]]:
        """The number of each process that counts here or computes for one that does, and how they are told apart."""
        heads: list[tuple[dict[str, str], list[int]]] = [({}, self._header.tolist())]
        if self._folder is not None:
            heads = [({"worker": path.stem}, np.fromfile(path, np.int64, _HEADER).tolist()) for path in self._files()]
        signed = [(labels, head) for labels, head in heads if head]  # one that has only just begun has none
        computing = [({**labels, "process": "compute"}, head[2]) for labels, head in signed if head[2]]
        return [*((labels, head[0]) for labels, head in signed), *computing]

    def _files(self) -> list[Path]:
        return [] if self._folder is None else sorted(self._folder.glob(f"*{_SUFFIX}"))


def map_file(path: Path, size: int) -> mmap.mmap:
    """The first `size` bytes of a file, shared with every process that maps it; zeros where there were none.

    Raises:
        UnusableFolder: The folder has no room for them.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Without room for it on the disk, a page that is written for the first time would end the process.
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(descriptor, 0, size)
            elif os.fstat(descriptor).st_size < size:
                os.truncate(descriptor, size)
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnusableFolder(
            f"Expected room for {size} bytes in {path.parent}, where the workers count together, but: "
            f"{error.strerror}; make room, or set TMPDIR to a folder that has it."
        ) from error


def _read(path: Path) -> Blocks:
    with path.open("rb") as file:
        header = np.fromfile(file, np.int64, _HEADER).tolist()
        if len(header) < _HEADER:  # its process has only just begun, and counted nothing
            return {}
        used = header[1]
        entries = _entries(file.read(used))
        file.seek(_FIRST_NUMBER)
        return _blocks(entries, np.fromfile(file, count=sum(size for _, _, size in entries)))


def _blocks(entries: list[Entry], array: NDArray[np.float64]) -> Blocks:
    ends = accumulate(size for _, _, size in entries)
    return {
        (metric, tuple(labels)): array[end - size : end]
        for (metric, labels, size), end in zip(entries, ends, strict=True)
    }


def _entries(index: bytes) -> list[Entry]:
    return [json.loads(line) for line in index.splitlines()]
