"""OpenTelemetry traces: a span for each request, and within it one for its wait and one for its computation."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from dubio.serving.errors import TracingUnavailable
from dubio.serving.telemetry.access_log import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.trace import Span

    from dubio.serving.batching import BatchRecord

_FLUSH_SECONDS = 3.0
_SERVER_ERROR = 500


class Tracing:
    """Makes spans.

    Args:
        provider: That makes and sends them.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("dubio")

    @classmethod
    def over_http(cls) -> Tracing:
        """Send spans as the standard OTEL_* variables say: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and so on.

        Raises:
            TracingUnavailable: The extra `otel` is not installed.
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
        provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=_system_id_generator())
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def request(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[Span]:
        """The span of one request, within the caller's trace if `headers` name one; current while it is entered.

        It goes on until `end`.
        """
        from opentelemetry.trace import SpanKind, use_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in headers
            if name in (b"traceparent", b"tracestate")
        }
        context = TraceContextTextMapPropagator().extract(carrier)
        return use_span(self._tracer.start_span(method, context=context, kind=SpanKind.SERVER))

    def end(self, span: Span, request: RequestRecord) -> None:
        """Say on its span what a request was: in OpenTelemetry's own names where it has some, and in ours."""
        from opentelemetry.trace import StatusCode

        known = {
            **(_over_http(request) if request.code is None else _over_grpc(request)),
            "dubio.request_id": request.request_id,
            "dubio.model": request.model,
            "dubio.version": request.version,
            "dubio.rows": request.rows,
            "error.type": request.refused,
        }
        span.set_attributes({name: value for name, value in known.items() if value is not None})
        if request.code is not None:
            span.update_name(request.path.strip("/"))  # as OpenTelemetry names calls
        else:
            span.update_name(f"{request.method} {request.route}" if request.route else request.method)
        if request.status >= _SERVER_ERROR:
            span.set_status(StatusCode.ERROR)
        span.end()

    def show_batch(self, batch: BatchRecord) -> None:
        """Within each request of a batch that has just ended: how long it waited, and how long it was computed."""
        ended = time.time_ns()
        began = ended - _nanoseconds(batch.compute_seconds)
        size = {"dubio.batch.rows": batch.rows, "dubio.batch.requests": batch.requests}
        for context, waited in zip(batch.contexts, batch.queue_seconds, strict=True):
            context.run(self._show, "queue", began - _nanoseconds(waited), began, {})
            context.run(self._show, "compute", began, ended, {**size, "dubio.members": batch.most_samples})

    def _show(self, name: str, began: int, ended: int, attributes: dict[str, int]) -> None:
        self._tracer.start_span(name, start_time=began, attributes=attributes).end(ended)

    def close(self) -> None:
        """Send what waits, but do not wait long for a collector that does not answer."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_FLUSH_SECONDS)


def _system_id_generator() -> IdGenerator:
    """Numbers from the system: those of `random` come again where a model that loads puts its state back."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    source = random.SystemRandom()

    class SystemIdGenerator(RandomIdGenerator):
        def generate_span_id(self) -> int:
            return source.randrange(1, 2**64)

        def generate_trace_id(self) -> int:
            return source.randrange(1, 2**128)

    return SystemIdGenerator()


def _over_http(request: RequestRecord) -> dict[str, Any]:
    return {
        "http.request.method": request.method,
        "http.route": request.route,
        "http.response.status_code": request.status,
    }


def _over_grpc(request: RequestRecord) -> dict[str, Any]:
    service, _, method = request.path.strip("/").partition("/")
    return {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": method,
        "rpc.response.status_code": request.code,
    }


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
