from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from dubio.serving.app import create_app
from dubio.serving.telemetry.access_log import RequestRecord
from dubio.serving.telemetry.tracing import Tracing

ROOT = Path(__file__).parents[3]
BODY = {"instances": [[1, 2, 3, 4, 5], [0, 0, 0, 0, 0]]}
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(exporter: InMemorySpanExporter, settings: Any, numbers_checkpoint: Path) -> Iterator[TestClient]:
    """A client of a service that keeps its spans in memory."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    application = create_app(settings(models=(str(numbers_checkpoint),)), tracing=Tracing(provider))
    with TestClient(application.asgi, "http://localhost") as client:
        yield client


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def test_a_request_holds_its_wait_and_its_computation(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    answer = traced.post("/v1/predict", json=BODY, headers={"traceparent": CALLER, "X-API-Key": "some-secret-key"})
    assert answer.status_code == 200
    [request] = named(exporter, "POST /v1/predict")
    [queue], [compute] = named(exporter, "queue"), named(exporter, "compute")
    assert f"{request.context.trace_id:032x}" in CALLER
    assert f"{request.parent.span_id:016x}" in CALLER
    assert queue.parent.span_id == compute.parent.span_id == request.context.span_id
    assert request.start_time <= queue.start_time <= queue.end_time == compute.start_time <= compute.end_time
    assert compute.end_time <= request.end_time
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["dubio.rows"] == compute.attributes["dubio.batch.rows"] == 2
    assert request.attributes["dubio.request_id"] == answer.headers["x-request-id"]
    assert compute.attributes["dubio.members"] == 16
    for span in exporter.get_finished_spans():
        assert "secret" not in span.to_json()


def test_a_call_over_grpc_has_the_names_that_calls_have(exporter: InMemorySpanExporter) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    path = "/inference.GRPCInferenceService/ModelInfer"
    with tracing.request("gRPC", [(b"traceparent", CALLER.encode())]) as span:
        record = RequestRecord("r-1", "gRPC", path, 503, 0.1, route=path, refused="overloaded", code="UNAVAILABLE")
    tracing.end(span, record)
    [ended] = named(exporter, "inference.GRPCInferenceService/ModelInfer")
    assert f"{ended.parent.span_id:016x}" in CALLER
    assert dict(ended.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.response.status_code": "UNAVAILABLE",
        "dubio.request_id": "r-1",
        "error.type": "overloaded",
    }
    assert not ended.status.is_ok


def test_batch_mates_keep_their_own_traces(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: traced.post("/v1/predict", json=BODY), range(24)))
    requests = {span.context.span_id: span.context.trace_id for span in named(exporter, "POST /v1/predict")}
    assert len(set(requests.values())) == 24
    for name in ("queue", "compute"):
        spans = named(exporter, name)
        assert sorted(span.parent.span_id for span in spans) == sorted(requests)
        assert all(span.context.trace_id == requests[span.parent.span_id] for span in spans)


def test_refusals_say_why(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    traced.post("/v1/predict", content=b"{")
    traced.post("/nowhere/at/all")
    [malformed] = named(exporter, "POST /v1/predict")
    [unknown] = named(exporter, "POST")
    assert malformed.attributes["error.type"] == "malformed_json"
    assert unknown.attributes["http.response.status_code"] == 404


def test_without_the_extra_it_is_one_line(command: Any, tmp_path: Path, numbers_checkpoint: Path) -> None:
    hiding = tmp_path / "opentelemetry" / "exporter"  # FastAPI brings the rest of opentelemetry along
    hiding.mkdir(parents=True)
    (hiding / "__init__.py").touch()
    code, line = command.refused(
        str(numbers_checkpoint), "--port", "0", "--tracing", PYTHONPATH=str(tmp_path), DUBIO_LOG_LEVEL="error"
    )
    assert code == 2
    assert "pip install 'dubio[otel]'" in line


def test_spans_are_sent_where_the_standard_variables_say() -> None:
    """A collector of our own; a process of its own, for the variables are read once."""
    code = """
import gzip, os, random, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

received = []

class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        received.append((self.path, gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass

server = HTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
os.environ["OTEL_SERVICE_NAME"] = "my-own-name"
from dubio.serving.telemetry.tracing import Tracing

tracing = Tracing.over_http()
spans = []
for _ in range(2):
    random.seed(1)  # as where a model that is loaded puts the state back
    with tracing.request("GET", []) as span:
        span.end()
    spans.append(span.get_span_context())
tracing.close()
assert spans[0].trace_id != spans[1].trace_id and spans[0].span_id != spans[1].span_id, spans
[(path, body)] = received
assert path == "/v1/traces" and b"my-own-name" in body and b"GET" in body, received
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
