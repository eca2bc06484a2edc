"""What the service tells about itself: each event is told once, here, and reaches every book that is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from dubio.models import Prediction
from dubio.serving.batching import BatchRecord
from dubio.serving.drift.monitor import DriftMonitor
from dubio.serving.repository.registry import ServedModel
from dubio.serving.telemetry.access_log import AccessLog, RequestRecord
from dubio.serving.telemetry.metrics import Metrics
from dubio.serving.telemetry.statistics import RequestTimer, Statistics
from dubio.serving.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

T = TypeVar("T")

_log = logging.getLogger("dubio")
_NO_SPAN: AbstractContextManager[None] = nullcontext()


@dataclass
class Telemetry:
    """Metrics, statistics, traces, the access log and the evidence of drift. Thread-safe.

    Attributes:
        metrics: For Prometheus.
        tracing: None for no traces.
        access_log: None for no log of requests.
        drift: None to watch for none.
    """

    metrics: Metrics = field(default_factory=Metrics)
    tracing: Tracing | None = None
    access_log: AccessLog | None = None
    drift: DriftMonitor | None = None

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._broken: set[str] = set()
        # The statistics of a version go when the version does.
        self._statistics: WeakKeyDictionary[ServedModel, Statistics] = WeakKeyDictionary()

    def statistics(self, model: ServedModel) -> Statistics:
        """What this version did since it was loaded."""
        with self._lock:
            if (statistics := self._statistics.get(model)) is None:
                statistics = self._statistics[model] = Statistics(model.name, model.version)
            return statistics

    def timer(self, model: ServedModel) -> RequestTimer:
        """To be entered around a request for this model."""
        return RequestTimer(self.statistics(model))

    def span(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[Span | None]:
        """To be entered around a request; gives its span, or None without traces."""
        if self.tracing is None:
            return _NO_SPAN
        return self._tell("traces", self.tracing.request, method, headers) or _NO_SPAN

    def count_request(self, request: RequestRecord, span: Span | None = None) -> None:
        """A request was answered."""
        self._tell("metrics", self.metrics.count_request, request)
        if self.access_log is not None and not self._tell("access log", self.access_log.write, request):
            self._tell("metrics", self.metrics.count_lost_line)
        if self.tracing is not None and span is not None:
            self._tell("traces", self.tracing.end, span, request)

    def count_prediction(self, model: ServedModel, prediction: Prediction) -> None:
        """The rows of one request were predicted."""
        self._tell("metrics", self.metrics.count_prediction, model.name, model.version, prediction)
        if self.drift is not None:
            self._tell("drift", self.drift.observe, model, prediction)

    def batch_listener(self, model: ServedModel) -> Callable[[BatchRecord], None]:
        """What is to be told of every batch of this model; it does not keep the model alive."""
        return partial(self._count_batch, self.statistics(model))

    def _count_batch(self, statistics: Statistics, batch: BatchRecord) -> None:
        self._tell("statistics", statistics.count_batch, batch)
        self._tell("metrics", self.metrics.count_batch, statistics.name, statistics.version, batch)
        if self.tracing is not None:
            self._tell("traces", self.tracing.show_batch, batch)

    def _tell(self, book: str, note: Callable[..., T], *event: object) -> T | None:
        """Note an event in a book. Whatever goes wrong with that fails no request, and is said once."""
        try:
            return note(*event)
        except Exception:
            if book not in self._broken:
                self._broken.add(book)
                _log.exception("Cannot write to the %s; requests are answered all the same.", book)
            return None

    def close(self) -> None:
        """Send and write what waits, for a moment."""
        if self.drift is not None:
            self.drift.close()
        if self.tracing is not None:
            self.tracing.close()
        if self.access_log is not None:
            self.access_log.close()
