from __future__ import annotations

import gc
import threading

from dubio.models import Predictor
from dubio.serving.batching import BatchRecord
from dubio.serving.repository.repository import ServedModel
from dubio.serving.telemetry.statistics import Record, Statistics
from dubio.serving.v2.schema import ModelStatistics


def batch(rows: int, queue: list[float], compute: float, failed: int = 0) -> BatchRecord:
    return BatchRecord(
        rows=rows, requests=len(queue), samples=16, queue_seconds=queue, compute_seconds=compute, failed=failed
    )


def test_the_sums() -> None:
    record = Record()
    record.count_batch(batch(5, [0.1, 0.3], 0.5))
    record.count_batch(batch(5, [0.2], 1.0))
    record.count_batch(batch(1, [0.0, 0.0], 2.0, failed=1))
    record.count_failure(2.0)
    record.count_translation(reading=0.001, writing=0.002)
    report = record.report()
    assert (report["inference_count"], report["execution_count"]) == (11, 3)
    stats = report["inference_stats"]
    assert stats["queue"] == {"count": 5, "ns": 600_000_000}
    assert stats["compute_infer"] == {"count": 5, "ns": 6_000_000_000}
    assert stats["success"] == {"count": 4, "ns": 4_600_000_000}
    assert stats["fail"] == {"count": 1, "ns": 2_000_000_000}
    assert (stats["compute_input"]["ns"], stats["compute_output"]["ns"]) == (1_000_000, 2_000_000)
    sizes = [(size["batch_size"], size["compute_infer"]) for size in report["batch_stats"]]
    assert sizes == [(1, {"count": 1, "ns": 2_000_000_000}), (5, {"count": 2, "ns": 1_500_000_000})]


def test_a_version_that_did_nothing_reports_nothing(predictor: Predictor) -> None:
    report = Statistics().report(ServedModel("m", "3", predictor))
    parsed = ModelStatistics.model_validate(report)
    assert (parsed.name, parsed.version, parsed.last_inference, parsed.inference_count) == ("m", "3", 0, 0)
    assert parsed.batch_stats == []


def test_versions_are_apart_and_gone_with_their_model(predictor: Predictor) -> None:
    statistics = Statistics()
    old, new = ServedModel("m", "1", predictor), ServedModel("m", "2", predictor)
    statistics.of(old).count_batch(batch(4, [0.1], 0.1))
    assert statistics.report(old)["inference_count"] == 4
    assert statistics.report(new)["inference_count"] == 0
    del old
    gc.collect()
    assert len(statistics._records) == 1


def test_threads_lose_nothing() -> None:
    record = Record()

    def count() -> None:
        for _ in range(500):
            record.count_batch(batch(2, [0.0], 0.0))
            record.report()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert record.report()["inference_count"] == 4000
