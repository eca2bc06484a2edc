"""Numbers that only ever grow, kept so that several processes can be added up at any moment.

Each process owns one file: an array of float64 that it alone writes, mapped into memory, and beside it an index that
says what stands where. Whoever is asked for the metrics reads all of them. A file outlives its process, and the process
that takes its place goes on counting in it, so that no counter ever falls.
"""

from __future__ import annotations

import json
import mmap
import os
from collections import Counter
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# 2 MiB of float64, of which the system only provides what is touched. Metrics bound their own series well below it.
_NUMBERS = 1 << 18
_SIZE = 8 * _NUMBERS
# Far more than a service has models; a service that is reloaded for months meets new versions all the time, though.
_MOST_SERIES = 500

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
    """

    def __init__(self, folder: Path | None = None, worker: int = 0, most_series: int = _MOST_SERIES) -> None:
        self._folder = folder
        self._most_series = most_series
        self._index: Path | None = None
        self._used = 0
        self.own: Blocks = {}
        if folder is None:
            self._memory = mmap.mmap(-1, _SIZE)
        else:
            numbers = folder / f"{worker}.numbers"
            self._memory = map_file(numbers, _SIZE)
            self._index = numbers.with_suffix(".index")
            self._used = _mend(self._index)
            self.own = _blocks(_entries(self._index), np.frombuffer(self._memory))
        self._array = np.frombuffer(self._memory)
        self._series = Counter(metric for metric, _ in self.own)

    def block(self, metric: str, labels: Labels, size: int) -> NDArray[np.float64]:
        """The block of a series, of `size` numbers; all zero when it is new."""
        block = self.own.get((metric, labels))
        if block is None and self._series[metric] >= self._most_series:
            labels = ("other",) * len(labels)
            block = self.own.get((metric, labels))
        if block is None:
            block = self.own[metric, labels] = self._array[self._used : self._used + size]
            self._used += size
            self._series[metric] += 1
            if self._index is not None:
                with self._index.open("a", encoding="utf-8") as index:
                    index.write(json.dumps([metric, labels, size]) + "\n")
        return block

    def total(self) -> Blocks:
        """Every series, added up over all processes."""
        if self._folder is None:
            return {series: values.copy() for series, values in self.own.items()}
        sums: Blocks = {}
        for index in sorted(self._folder.glob("*.index")):
            entries = _entries(index)
            array = np.fromfile(index.with_suffix(".numbers"), count=sum(size for _, _, size in entries))
            for series, values in _blocks(entries, array).items():
                sums[series] = sums[series] + values if series in sums else values
        return sums


def map_file(path: Path, size: int) -> mmap.mmap:
    """The first `size` bytes of a file, shared with every process that maps it; zeros where there were none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _blocks(entries: list[Entry], array: NDArray[np.float64]) -> Blocks:
    ends = accumulate(size for _, _, size in entries)
    return {
        (metric, tuple(labels)): array[end - size : end]
        for (metric, labels, size), end in zip(entries, ends, strict=True)
    }


def _entries(index: Path) -> list[Entry]:
    lines = index.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may be on its way


def _mend(index: Path) -> int:
    """Make `index` end with a whole line, which a process that was killed may not have written.

    Returns:
        How many numbers it knows.
    """
    index.touch(mode=0o600)
    content = index.read_bytes()
    os.truncate(index, content.rfind(b"\n") + 1)
    return sum(size for _, _, size in _entries(index))
