"""Numbers that rise and fall: how much is under way right now, in all workers together.

Nothing is written while requests are served: each worker measures itself a few times a second, and when it is asked.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric


@dataclass(frozen=True)
class Gauge:
    """One metric."""

    name: str
    help: str


IN_FLIGHT = Gauge("dubio_in_flight_requests", "HTTP requests that are being answered.")
WAITING_ROWS = Gauge("dubio_waiting_rows", "Instances that wait for their prediction or are being predicted.")
WAITING_BYTES = Gauge("dubio_waiting_bytes", "Bytes of these instances.")

GAUGES = (IN_FLIGHT, WAITING_ROWS, WAITING_BYTES)

# As many as settings allow.
_MOST_WORKERS = 256
_BYTES = 8


class Gauges:
    """A row of numbers for each worker, in memory that they share, and this worker's way to measure its own."""

    def __init__(self, folder: Path | None = None, worker: int = 0) -> None:
        """Measure this process alone, or worker number `worker` of those that share `folder`."""
        size = _MOST_WORKERS * len(GAUGES) * _BYTES
        if folder is None:
            self._memory = mmap.mmap(-1, size)
        else:
            descriptor = os.open(folder / "gauges", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.ftruncate(descriptor, size)
                self._memory = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        self._board = memoryview(self._memory).cast("d")
        self._first = worker * len(GAUGES)
        self._measures: dict[Gauge, Callable[[], float]] = {}
        self.leave()

    def watch(self, gauge: Gauge, measure: Callable[[], float]) -> None:
        """From now on `measure` says how much there is in this process."""
        self._measures[gauge] = measure

    def look(self) -> None:
        """Measure this process."""
        for index, gauge in enumerate(GAUGES):
            if gauge in self._measures:
                self._board[self._first + index] = self._measures[gauge]()

    def leave(self) -> None:
        """There is nothing under way in a worker that is gone, or new."""
        for index in range(len(GAUGES)):
            self._board[self._first + index] = 0

    def collect(self) -> Iterable[Metric]:
        """The sums over all workers."""
        self.look()
        for index, gauge in enumerate(GAUGES):
            yield GaugeMetricFamily(gauge.name, gauge.help, value=sum(self._board[index :: len(GAUGES)]))
