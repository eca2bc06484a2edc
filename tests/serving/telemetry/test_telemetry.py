"""Every event once, in every book."""

from __future__ import annotations

import errno
import gc
import json
import os
import weakref
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dubio.models import Prediction, Predictor
from dubio.serving.batching import BatchRecord
from dubio.serving.repository.registry import ServedModel
from dubio.serving.telemetry.access_log import AccessLog, RequestRecord
from dubio.serving.telemetry.metrics import Metrics
from dubio.serving.telemetry.telemetry import Telemetry
from dubio.serving.telemetry.tracing import Tracing

REQUEST = RequestRecord("r-1", "POST", "/v1/predict", 200, 0.1, route="/v1/predict", model="m", version="3", rows=2)
BATCH = BatchRecord(rows=5, requests=1, samples=16, queue_seconds=[0.1], compute_seconds=0.2, failed=0)


def test_a_request_is_counted_logged_and_traced() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    reader, writer = os.pipe()
    telemetry = Telemetry(Metrics(), Tracing(provider), AccessLog(writer))
    with telemetry.span("POST", []) as span:
        telemetry.count_request(REQUEST, span)
    telemetry.close()
    os.close(writer)
    with os.fdopen(reader) as file:
        [line] = map(json.loads, file)
    [traced] = exporter.get_finished_spans()
    labels = {"route": "/v1/predict", "model": "m", "version": "3", "status": "200"}
    assert telemetry.metrics.registry.get_sample_value("dubio_requests_total", labels) == 1
    assert (line["request_id"], line["rows"]) == ("r-1", 2)
    assert (traced.name, traced.attributes["dubio.request_id"]) == ("POST /v1/predict", "r-1")


def test_without_traces_and_log_a_request_is_counted_only() -> None:
    telemetry = Telemetry()
    with telemetry.span("GET", []) as span:
        assert span is None
        telemetry.count_request(REQUEST, span)
    telemetry.close()
    labels = {"route": "/v1/predict", "model": "m", "version": "3"}
    assert telemetry.metrics.registry.get_sample_value("dubio_request_seconds_sum", labels) == pytest.approx(0.1)


def test_batches_and_predictions_are_counted_for_their_version(predictor: Predictor, bars: np.ndarray) -> None:
    telemetry = Telemetry()
    old, new = ServedModel("m", "1", predictor), ServedModel("m", "2", predictor)
    telemetry.batch_listener(old)(BATCH)
    telemetry.count_prediction(old, predictor.predict(bars))
    reports = [telemetry.statistics(model).report() for model in (old, new)]
    assert [(report["version"], report["inference_count"]) for report in reports] == [("1", 5), ("2", 0)]
    sample = telemetry.metrics.registry.get_sample_value
    assert sample("dubio_batch_rows_sum", {"model": "m", "version": "1"}) == 5
    assert sample("dubio_rows_total", {"model": "m", "version": "1"}) == len(bars)
    assert sample("dubio_rows_total", {"model": "m", "version": "2"}) is None


class BrokenProcessor(SpanProcessor):
    """One of an operator's own, with a bug."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if span.name == "DELETE":
            raise RuntimeError("no start")

    def on_end(self, span: Any) -> None:
        raise RuntimeError("no end")


class BrokenMetrics(Metrics):
    """Cannot count."""

    def count_request(self, request: RequestRecord) -> None:
        raise OSError(errno.ENOSPC, "no count")

    def count_batch(self, model: str, version: str, batch: BatchRecord) -> None:
        raise OSError(errno.ENOSPC, "no count")

    def count_prediction(self, model: str, version: str, prediction: Prediction) -> None:
        raise OSError(errno.ENOSPC, "no count")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_book_that_is_broken_fails_no_request_and_no_other_book_and_is_named_once(
    method: str, predictor: Predictor, bars: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BrokenProcessor())
    reader, writer = os.pipe()
    telemetry = Telemetry(BrokenMetrics(), Tracing(provider), AccessLog(writer))
    model = ServedModel("m", "3", predictor)
    for _ in range(3):
        with telemetry.span(method, []) as span:
            telemetry.batch_listener(model)(replace(BATCH, contexts=[copy_context()]))
            telemetry.count_prediction(model, predictor.predict(bars))
            telemetry.count_request(REQUEST._replace(path="/\udc00"), span)  # which is not even text
            telemetry.count_request(REQUEST, span)
    telemetry.close()
    os.close(writer)
    with os.fdopen(reader) as file:
        assert [json.loads(line)["rows"] for line in file] == [2, 2, 2]
    assert telemetry.statistics(model).report()["inference_count"] == 15
    said = [record.getMessage() for record in caplog.records if "Cannot write to the" in record.getMessage()]
    assert sorted(said) == [
        f"Cannot write to the {book}; requests are answered all the same."
        for book in ("access log", "metrics", "traces")
    ]


def test_what_counts_for_a_version_keeps_it_not_alive_and_goes_with_it(predictor: Predictor) -> None:
    telemetry = Telemetry()
    model = ServedModel("m", "1", predictor)
    listener, gone = telemetry.batch_listener(model), weakref.ref(model)
    statistics = weakref.ref(telemetry.statistics(model))
    listener(BATCH)
    del model
    gc.collect()
    assert gone() is None
    del listener
    gc.collect()
    assert statistics() is None


def test_threads_that_are_the_first_to_ask_share_one(predictor: Predictor, race: Callable) -> None:
    telemetry = Telemetry()
    models = [ServedModel("m", str(number), predictor) for number in range(500)]
    threads = race(500, lambda i: telemetry.statistics(models[int(i)]).count_failure(1.0), lambda: None)
    counts = [telemetry.statistics(model).report()["inference_stats"]["fail"]["count"] for model in models]
    assert counts == [threads] * 500
