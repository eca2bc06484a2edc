"""OpenTelemetry traces: a span for each request, and within it one for its wait and one for its computation."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from dubio.serving.errors import TracingUnavailable

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

    from dubio.serving.batching import BatchRecord

_FLUSH_SECONDS = 3.0


class Tracing:
    """Makes spans with a provider, or nothing at all, at no cost, without one."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """Trace with `provider`; None switches tracing off."""
        self._provider = provider
        self._tracer = provider.get_tracer("dubio") if provider else None

    @classmethod
    def over_http(cls) -> Tracing:
        """Send spans as the standard OTEL_* variables say: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and so on.

        Raises:
            TracingUnavailable: the extra `otel` is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TracingUnavailable(
                f"Expected `tracing` to have its libraries, but {error.name} is missing; pip install 'dubio[otel]'."
            ) from error
        resource = Resource.create({SERVICE_NAME: "dubio"}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def request(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[Span | None]:
        """The span of one request, within the caller's trace if `headers` name one; current while it is entered."""
        if self._tracer is None:
            return _OFF
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in headers
            if name in (b"traceparent", b"tracestate")
        }
        return self._tracer.start_as_current_span(
            method, context=TraceContextTextMapPropagator().extract(carrier), kind=SpanKind.SERVER
        )

    def show_batch(self, record: BatchRecord) -> None:
        """Within each request of a batch that has just ended: how long it waited, and how long it was computed."""
        if self._tracer is None:
            return
        ended = time.time_ns()
        began = ended - _nanoseconds(record.compute_seconds)
        size = {"dubio.batch.rows": record.rows, "dubio.batch.requests": record.requests}
        for context, waited in zip(record.contexts, record.queue_seconds, strict=True):
            context.run(self._show, "queue", began - _nanoseconds(waited), began, {})
            context.run(self._show, "compute", began, ended, {**size, "dubio.members": record.most_samples})

    def _show(self, name: str, began: int, ended: int, attributes: dict[str, int]) -> None:
        if self._tracer is not None:
            self._tracer.start_span(name, start_time=began, attributes=attributes).end(ended)

    def close(self) -> None:
        """Send what waits, but do not wait long for a collector that does not answer."""
        if self._provider is not None:
            sending = threading.Thread(target=self._provider.shutdown, daemon=True)
            sending.start()
            sending.join(_FLUSH_SECONDS)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


_OFF: AbstractContextManager[None] = nullcontext()
