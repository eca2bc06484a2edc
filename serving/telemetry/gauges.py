"""Numbers that rise and fall: how much is under way right now, in all workers together.

Nothing is written while requests are served: each worker measures itself a few times a second, and when it is asked.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prometheus_client.core import GaugeMetricFamily, Metric

from dubio.serving.telemetry.mmap_store import map_file


@dataclass(frozen=True)
class Gauge:
    """One metric."""

    name: str
    help: str


IN_FLIGHT = Gauge("dubio_in_flight_requests", "Requests that are being answered.")
WAITING_ROWS = Gauge("dubio_waiting_rows", "Instances that wait for their prediction or are being predicted.")
WAITING_BYTES = Gauge("dubio_waiting_bytes", "Bytes of these instances.")
STORE_WAITING_ROWS = Gauge("dubio_store_waiting_rows", "Rows that wait to be written to the store.")
STORE_FAILING = Gauge("dubio_store_failing", "Processes that could not write to the store when they tried last.")

GAUGES = (IN_FLIGHT, WAITING_ROWS, WAITING_BYTES, STORE_WAITING_ROWS, STORE_FAILING)

# As many as settings allow.
_MOST_WORKERS = 256
_BYTES = 8


class Gauges:
    """A row of numbers for each worker, in memory that they share, and how this worker measures its own.

    Args:
        folder: That the workers share; None for a process that is alone.
        worker: This process's number among them.
    """

    def __init__(self, folder: Path | None = None, worker: int = 0) -> None:
        size = _MOST_WORKERS * len(GAUGES) * _BYTES
        memory = mmap.mmap(-1, size) if folder is None else map_file(folder / "gauges", size)
        self._board = np.frombuffer(memory).reshape(_MOST_WORKERS, len(GAUGES))
        self._own = self._board[worker]
        self._measures: dict[Gauge, Callable[[], float]] = {}
        self.clear()

    def clear(self) -> None:
        """Nothing is under way in a worker that is new, or gone."""
        self._own[:] = 0

    def register(self, gauge: Gauge, measure: Callable[[], float]) -> None:
        """From now on `measure` says how much there is in this process."""
        self._measures[gauge] = measure

    def update(self) -> None:
        """Measure this process."""
        for index, gauge in enumerate(GAUGES):
            if gauge in self._measures:
                self._own[index] = self._measures[gauge]()

    def collect(self) -> Iterable[Metric]:
        """The sums over all workers."""
        self.update()
        for gauge, total in zip(GAUGES, self._board.sum(axis=0).tolist(), strict=True):
            yield GaugeMetricFamily(gauge.name, gauge.help, value=total)
