from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dubio.models import Predictor, Work
from dubio.serving.batching import BatchRecord
from dubio.serving.telemetry.access_log import RequestRecord
from dubio.serving.telemetry.definitions import MUTUAL_INFORMATION, P_VALUE
from dubio.serving.telemetry.metrics import Metrics

MODEL = {"model": "m", "version": "3"}


def samples(metrics: Metrics) -> dict[tuple[object, ...], float]:
    """What a scrape gets, by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[(name, *sorted(labels.items()))]


def batch(rows: int, samples: int | np.ndarray, queue: list[float], compute: float) -> BatchRecord:
    return BatchRecord(
        rows=rows, requests=len(queue), samples=samples, queue_seconds=queue, compute_seconds=compute, failed=0
    )


def request(status: int = 200, refused: str | None = None, **known: str) -> RequestRecord:
    return RequestRecord("r", "POST", "/v1/predict?", status, 0.1, refused=refused, **known)


def test_predictions_are_counted_by_what_they_say(predictor: Predictor, bars: np.ndarray) -> None:
    metrics = Metrics()
    x = np.concatenate([bars, np.full((3, 1, 8, 8), 500, dtype=np.float32)])
    prediction = predictor.predict(x)
    metrics.count_prediction("m", "3", prediction)
    metrics.count_prediction("m", "3", predictor.predict(x, samples=2))  # rows without a verdict flag nobody
    metrics.count_prediction("m", "3", predictor.predict(x, work=Work.DETERMINISTIC))

    counted = samples(metrics)
    assert value(metrics, "dubio_rows_total", **MODEL) == 3 * len(x)
    assert value(metrics, "dubio_mutual_information_nats_count", **MODEL) == 2 * len(x)
    assert value(metrics, "dubio_p_value_count", **MODEL) == len(x)
    for reason in ("out_of_range", "uncertain", "unfamiliar"):
        rows = counted.get(("dubio_flagged_total", ("model", "m"), ("reason", reason), ("version", "3")), 0)
        assert rows == prediction.reasons.count(reason)


@pytest.mark.parametrize("rows", [1, 5, 60])
def test_buckets_hold_what_prometheus_says_they_hold(predictor: Predictor, bars: np.ndarray, rows: int) -> None:
    """A bucket counts the values at or below its bound; few values are counted one by one, many at once."""
    metrics = Metrics()
    prediction = predictor.predict(bars[:rows])
    metrics.count_prediction("m", "3", prediction)
    for family, values in ((MUTUAL_INFORMATION, prediction.mutual_information), (P_VALUE, prediction.p_value)):
        for bound in family.bounds:
            assert value(metrics, f"{family.name}_bucket", **MODEL, le=str(bound)) == np.sum(values <= bound)
        assert value(metrics, f"{family.name}_bucket", **MODEL, le="+Inf") == rows
        assert value(metrics, f"{family.name}_sum", **MODEL) == pytest.approx(values.sum())


def test_batches_are_counted_by_request_batch_and_row() -> None:
    metrics = Metrics()
    metrics.count_batch("m", "3", batch(10, 16, [0.002, 0.02], 0.004))
    metrics.count_batch("m", "3", batch(3, 0, [0.0], 0.001))
    expected = {
        "dubio_batch_rows_count": 2,
        "dubio_batch_rows_sum": 13,
        "dubio_members_count": 13,
        "dubio_members_sum": 160,
        "dubio_queue_seconds_count": 3,
        "dubio_queue_seconds_sum": 0.022,
        "dubio_compute_seconds_count": 2,
        "dubio_compute_seconds_sum": 0.005,
    }
    for name, number in expected.items():
        assert value(metrics, name, **MODEL) == pytest.approx(number)
    assert value(metrics, "dubio_members_bucket", **MODEL, le="0.0") == 3


def test_members_are_counted_row_by_row_where_the_rows_differ() -> None:
    for count in (5, 12):  # a few one by one, many at once
        metrics = Metrics()
        members = np.array([8] * (count - 2) + [16, 64])
        metrics.count_batch("m", "3", batch(count, members, [0.1], 0.1))
        assert value(metrics, "dubio_members_sum", **MODEL) == members.sum()
        assert value(metrics, "dubio_members_count", **MODEL) == count
        for bound in (4, 8, 16, 32, 64):
            assert value(metrics, "dubio_members_bucket", **MODEL, le=str(float(bound))) == (members <= bound).sum()


def test_refusals_are_counted_by_reason() -> None:
    metrics = Metrics()
    asked = {"route": "/v1/predict", **MODEL}
    metrics.count_request(request(**asked))
    metrics.count_request(request(status=503, refused="overloaded", **asked))
    metrics.count_refused("head_too_large")
    assert value(metrics, "dubio_refused_total", **MODEL, reason="overloaded") == 1
    assert value(metrics, "dubio_requests_total", **asked, status="503") == 1
    assert value(metrics, "dubio_request_seconds_count", **asked) == 2
    assert value(metrics, "dubio_refused_total", model="", version="", reason="head_too_large") == 1


def test_what_matched_no_route_is_counted_without_its_path() -> None:
    metrics = Metrics()
    metrics.count_request(request(status=404))
    labels = {"route": "unmatched", "model": "", "version": ""}
    assert value(metrics, "dubio_requests_total", **labels, status="404") == 1
    assert value(metrics, "dubio_request_seconds_sum", **labels) == pytest.approx(0.1)


def test_two_services_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.count_request(request(route="/"))
    assert b'route="/"' in one.render()
    assert b'route="/"' not in other.render()


def test_workers_are_added_up_and_told_apart_where_they_are_processes(tmp_path: Path) -> None:
    workers = [Metrics(tmp_path, number) for number in range(3)]
    for number, worker in enumerate(workers):
        worker.count_batch("m", "3", batch(number + 1, 4, [0.1], 0.1))
    for worker in workers:
        assert value(worker, "dubio_batch_rows_sum", **MODEL) == 6
        memory = [key for key in samples(worker) if key[0] == "process_resident_memory_bytes"]
        assert [key[1] for key in memory] == [("worker", "0"), ("worker", "1"), ("worker", "2")]


def test_the_process_that_computes_is_shown_beside_its_worker(tmp_path: Path) -> None:
    def shown(metrics: Metrics) -> list[tuple[object, ...]]:
        return [key[1:] for key in samples(metrics) if key[0] == "process_resident_memory_bytes"]

    alone = Metrics()
    assert shown(alone) == [()]
    with subprocess.Popen(["sleep", "60"]) as other:
        alone.show_process(other.pid)
        assert shown(alone) == [(), (("process", "compute"),)]
        one, two = Metrics(tmp_path, 0), Metrics(tmp_path, 1)
        two.show_process(other.pid)
        workers = [(("worker", "0"),), (("worker", "1"),)]
        assert shown(one) == [*workers, (("process", "compute"), ("worker", "1"))]
        assert shown(Metrics(tmp_path, 1)) == workers  # a new worker, whose own is not there yet
        other.kill()


def test_versions_without_end_do_not_grow_the_answer_without_end() -> None:
    metrics = Metrics()
    for version in range(520):
        metrics.count_batch("m", str(version), batch(1, 1, [0.1], 0.1))
    lines = [line for line in metrics.render().decode().splitlines() if line.startswith("dubio_batch_rows_count{")]
    assert len(lines) == 501
    assert 'dubio_batch_rows_count{model="other",version="other"} 20.0' in lines


@pytest.mark.parametrize("kind", ["request", "refused", "batch", "prediction"])
def test_threads_that_begin_the_same_series_lose_nothing_and_disturb_no_scrape(
    kind: str, race: Callable, predictor: Predictor, bars: np.ndarray
) -> None:
    metrics, prediction, one = Metrics(), predictor.predict(bars[:1]), batch(1, 4, [0.1], 0.1)
    count, name, label = {
        "request": (lambda i: metrics.count_request(request(route=i)), "dubio_request_seconds_count", "route"),
        "refused": (metrics.count_refused, "dubio_refused_total", "reason"),
        "batch": (lambda i: metrics.count_batch("", i, one), "dubio_queue_seconds_count", "version"),
        "prediction": (lambda i: metrics.count_prediction("", i, prediction), "dubio_rows_total", "version"),
    }[kind]
    threads = race(480, count, lambda: list(metrics.collect()))
    counted = {s.labels[label]: s.value for m in metrics.collect() for s in m.samples if s.name == name}
    assert counted == {str(number): threads for number in range(480)}
