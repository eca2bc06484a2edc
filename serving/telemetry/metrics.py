"""What the service counts, for Prometheus. Labels are bounded: only loaded models and errors of ours become one."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dubio.models import Prediction
from dubio.serving.batching import BatchRecord
from dubio.serving.telemetry import definitions
from dubio.serving.telemetry.access_log import RequestRecord
from dubio.serving.telemetry.definitions import Family
from dubio.serving.telemetry.gauges import Gauges
from dubio.serving.telemetry.mmap_store import Blocks, Labels, MmapStore

# Above this many values numpy is faster than a loop.
_FEW = 8


class Metrics(Collector):
    """Counters, histograms and gauges, in a registry of their own. Thread-safe.

    Args:
        folder: That workers share to count together; None for a process that is alone.
        worker: This process's number among them.

    Attributes:
        registry: What a scrape reads.
        gauges: Numbers that rise and fall.
    """

    def __init__(self, folder: Path | None = None, worker: int = 0) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.gauges = Gauges(folder, worker)
        self._lock = Lock()
        self._store = MmapStore(folder, worker)
        self._expected: Iterable[tuple[Family, Labels]] = ()
        self._store.sign()

    def show_process(self, computing: int) -> None:
        """From now on show the memory and processor time of the process that computes, too, by its number."""
        self._store.sign(computing)

    def expect(self, series: Iterable[tuple[Family, Labels]]) -> None:
        """From now on show these series, those that count nothing yet at 0; gone through for every scrape."""
        self._expected = series

    def count_request(self, request: RequestRecord) -> None:
        """Count one answered request."""
        # Paths come from the caller and are unbounded; the route that matched is not.
        route, model, version = request.route or definitions.UNMATCHED, request.model or "", request.version or ""
        with self._lock:
            self._add(definitions.REQUESTS, (route, model, version, str(request.status)), 1)
            self._observe(definitions.REQUEST_SECONDS, (route, model, version), request.seconds)
            if request.refused is not None:
                self._add(definitions.REFUSED, (model, version, request.refused), 1)

    def count_refused(self, reason: str) -> None:
        """Count what was refused before it was a request."""
        with self._lock:
            self._add(definitions.REFUSED, ("", "", reason), 1)

    def count_lost_line(self) -> None:
        """Count a line that the access log could not take."""
        with self._lock:
            self._add(definitions.LOST_LINES, (), 1)

    def count_stored(self, rows: int) -> None:
        """Count rows that are on disk."""
        with self._lock:
            self._add(definitions.STORE_WRITTEN, (), rows)

    def count_dropped(self, rows: int) -> None:
        """Count rows that the store lost."""
        with self._lock:
            self._add(definitions.STORE_DROPPED, (), rows)

    def count_batch(self, model: str, version: str, batch: BatchRecord) -> None:
        """Count one batch: its rows, the members that answered each (0 when none was asked), the waits before it."""
        labels = (model, version)
        with self._lock:
            self._observe(definitions.BATCH_ROWS, labels, batch.rows)
            if isinstance(batch.samples, int):
                self._observe(definitions.MEMBERS, labels, batch.samples, times=batch.rows)
            else:
                self._observe_all(definitions.MEMBERS, labels, batch.samples)
            self._observe(definitions.COMPUTE_SECONDS, labels, batch.compute_seconds)
            for seconds in batch.queue_seconds:
                self._observe(definitions.QUEUE_SECONDS, labels, seconds)

    def count_prediction(self, model: str, version: str, prediction: Prediction) -> None:
        """Count a prediction's rows and, as far as they were computed, disagreement, p-values and flags."""
        labels = (model, version)
        flags = prediction.flags
        with self._lock:
            self._add(definitions.ROWS, labels, len(prediction.label))
            if prediction.monte_carlo is not None:
                self._observe_all(definitions.MUTUAL_INFORMATION, labels, prediction.monte_carlo.mutual_information)
            if flags is not None and flags.p_value is not None:
                self._observe_all(definitions.P_VALUE, labels, flags.p_value)
            if flags is not None and flags.flagged is not None:
                reasons = Counter(str(flags.reasons[row]) for row in np.flatnonzero(flags.flagged).tolist())
                for reason, rows in reasons.items():
                    self._add(definitions.FLAGGED, (*labels, reason), rows)

    def count_shadow(
        self, model: str, version: str, *, rows: int = 0, disagreements: int = 0, skipped: int = 0
    ) -> None:
        """Count what a shadow answered, and what it skipped."""
        labels = (model, version)
        with self._lock:
            self._add(definitions.SHADOW_ROWS, labels, rows)
            self._add(definitions.SHADOW_DISAGREEMENTS, labels, disagreements)
            self._add(definitions.SHADOW_SKIPPED_ROWS, labels, skipped)

    def render(self) -> bytes:
        """Prometheus's text format, added up over all workers."""
        return generate_latest(self.registry)

    def totals(self) -> Blocks:
        """The numbers of every series that was counted, added up over all workers."""
        with self._lock:
            return self._store.total()

    def collect(self) -> Iterable[Metric]:
        """What `render` writes."""
        blocks = self.totals()
        for family, labels in self._expected:
            blocks.setdefault((family.name, labels), np.zeros(family.numbers))
        for family in definitions.FAMILIES:
            series = ((labels, values) for (metric, labels), values in blocks.items() if metric == family.name)
            yield _histogram(family, series) if family.bounds else _counter(family, series)
        yield from self.gauges.collect()
        yield from _processes(self._store.processes())

    def _block(self, family: Family, labels: Labels) -> NDArray[np.float64]:
        block = self._store.own.get((family.name, labels))
        if block is None:
            block = self._store.block(family.name, labels, family.numbers)
        return block

    def _add(self, family: Family, labels: Labels, amount: float) -> None:
        self._block(family, labels)[0] += amount

    def _observe(self, family: Family, labels: Labels, value: float, *, times: int = 1) -> None:
        block = self._block(family, labels)
        block[bisect_left(family.bounds, value)] += times
        block[-1] += times * value

    def _observe_all(self, family: Family, labels: Labels, values: NDArray[Any]) -> None:
        if len(values) <= _FEW:
            for value in values.tolist():
                self._observe(family, labels, value)
            return
        block = self._block(family, labels)
        block[:-1] += np.bincount(np.searchsorted(family.bounds, values), minlength=len(family.bounds) + 1)
        block[-1] += values.sum()


def _counter(family: Family, series: Iterable[tuple[Labels, NDArray[np.float64]]]) -> Metric:
    metric = CounterMetricFamily(family.name, family.help, labels=family.labels)
    for labels, values in series:
        metric.add_metric(labels, float(values[0]))
    return metric


def _histogram(family: Family, series: Iterable[tuple[Labels, NDArray[np.float64]]]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    bounds = [*map(str, family.bounds), "+Inf"]
    for labels, values in series:
        counts = values[:-1].cumsum().tolist()
        metric.add_metric(labels, list(zip(bounds, counts, strict=True)), float(values[-1]))
    return metric


def _processes(processes: Iterable[tuple[Mapping[str, str], int]]) -> Iterable[Metric]:
    """Memory, processor time and files of every process, in Prometheus's names for them."""
    metrics: dict[str, Metric] = {}
    for labels, pid in processes:
        for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            shared = metrics.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            for sample in metric.samples:
                shared.add_sample(sample.name, {**sample.labels, **labels}, sample.value)
    return metrics.values()
