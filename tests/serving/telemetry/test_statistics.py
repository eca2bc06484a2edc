from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from dubio.serving.batching import BatchRecord
from dubio.serving.telemetry.statistics import RequestTimer, Statistics
from dubio.serving.v2.schema import ModelStatistics


def batch(rows: int, queue: list[float], compute: float, failed: int = 0) -> BatchRecord:
    return BatchRecord(
        rows=rows, requests=len(queue), samples=16, queue_seconds=queue, compute_seconds=compute, failed=failed
    )


def test_the_sums() -> None:
    statistics = Statistics("m", "3")
    statistics.count_batch(batch(5, [0.1, 0.3], 0.5))
    statistics.count_batch(batch(5, [0.2], 1.0))
    statistics.count_batch(batch(1, [0.0, 0.0], 2.0, failed=1))
    statistics.count_failure(2.0)
    statistics.count_translation(reading=0.001, writing=0.002)
    report = statistics.report()
    assert (report["inference_count"], report["execution_count"]) == (11, 3)
    stats = report["inference_stats"]
    assert stats["queue"] == {"count": 5, "ns": 600_000_000}
    assert stats["compute_infer"] == {"count": 5, "ns": 6_000_000_000}
    assert stats["success"] == {"count": 4, "ns": 4_600_000_000}
    assert stats["fail"] == {"count": 1, "ns": 2_000_000_000}
    assert (stats["compute_input"]["ns"], stats["compute_output"]["ns"]) == (1_000_000, 2_000_000)
    sizes = [(size["batch_size"], size["compute_infer"]) for size in report["batch_stats"]]
    assert sizes == [(1, {"count": 1, "ns": 2_000_000_000}), (5, {"count": 2, "ns": 1_500_000_000})]


def test_a_version_that_did_nothing_reports_nothing() -> None:
    parsed = ModelStatistics.model_validate(Statistics("m", "3").report())
    assert (parsed.name, parsed.version, parsed.last_inference, parsed.inference_count) == ("m", "3", 0, 0)
    assert parsed.batch_stats == []


def stats(statistics: Statistics) -> dict[str, dict[str, int]]:
    return statistics.report()["inference_stats"]


def test_a_request_is_timed_while_it_is_read_and_written_but_not_while_it_is_predicted() -> None:
    statistics = Statistics("m", "3")
    began = time.perf_counter()
    with RequestTimer(statistics) as timer:
        time.sleep(0.01)  # while its bytes come in
        timer.lap()
        time.sleep(0.02)
        timer.lap()
        time.sleep(0.03)
        timer.lap()
        time.sleep(0.04)
    most = (time.perf_counter() - began) * 1e9
    counted = stats(statistics)
    assert counted["compute_input"]["count"] == counted["compute_output"]["count"] == 1
    assert 20e6 <= counted["compute_input"]["ns"] <= most - 80e6
    assert 40e6 <= counted["compute_output"]["ns"] <= most - 60e6
    assert counted["fail"]["count"] == 0


def test_a_request_that_fails_counts_as_failed_and_one_whose_caller_left_does_not_count() -> None:
    statistics = Statistics("m", "3")
    for error in (ValueError, KeyboardInterrupt):  # as for a cancelled task, the second is no Exception
        try:
            with RequestTimer(statistics):
                time.sleep(0.01)
                raise error
        except error:
            pass
    counted = stats(statistics)
    assert counted["fail"]["count"] == 1
    assert counted["fail"]["ns"] >= 10e6
    assert counted["compute_input"]["count"] == 0


def test_threads_lose_nothing_and_disturb_no_report(race: Callable) -> None:
    statistics = Statistics("m", "3")
    threads = race(500, lambda i: statistics.count_batch(batch(1 + int(i), [0.0], 1.0)), statistics.report)
    sizes = {size["batch_size"]: size["compute_infer"]["count"] for size in statistics.report()["batch_stats"]}
    assert sizes == dict.fromkeys(range(1, 501), threads)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("fail", lambda statistics: statistics.count_failure(1.0)),
        ("compute_input", lambda statistics: statistics.count_translation(reading=1.0, writing=1.0)),
    ],
)
def test_threads_that_are_the_first_lose_nothing(kind: str, count: Callable, race: Callable) -> None:
    versions = [Statistics("m", str(number)) for number in range(1000)]
    threads = race(1000, lambda i: count(versions[int(i)]), lambda: None)
    assert [stats(version)[kind]["count"] for version in versions] == [threads] * 1000
