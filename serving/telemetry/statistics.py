"""What a model did since it was loaded, as the Open Inference Protocol's statistics extension reports it."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Any, Self

from dubio.serving.batching import BatchRecord

_NANOSECONDS = 1_000_000_000
_KINDS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


class Duration:
    """How often something happened, and how many seconds it took altogether."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Something happened `count` times and took `seconds` altogether."""
        self.count += count
        self.seconds += seconds

    def report(self) -> dict[str, int]:
        """As the protocol writes it."""
        return {"count": self.count, "ns": round(self.seconds * _NANOSECONDS)}


class Statistics:
    """What one version of a model did. Thread-safe; it does not hold the model, so it keeps none alive.

    Args:
        name: Of the model.
        version: Of the model.
    """

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self._lock = threading.Lock()
        self._rows = 0
        self._last = 0.0
        self._requests: defaultdict[str, Duration] = defaultdict(Duration)
        self._batches: defaultdict[int, Duration] = defaultdict(Duration)

    def count_batch(self, batch: BatchRecord) -> None:
        """A batch was computed: its rows, and its requests as far as they succeeded.

        As in Triton, each request is charged for the whole batch that it was part of.
        """
        waited = sum(batch.queue_seconds)
        good = batch.requests - batch.failed
        with self._lock:
            self._last = time.time()
            self._rows += batch.rows
            self._batches[batch.rows].add(batch.compute_seconds)
            self._requests["queue"].add(waited, batch.requests)
            self._requests["compute_infer"].add(batch.compute_seconds * batch.requests, batch.requests)
            if good:
                self._requests["success"].add(waited * good / batch.requests + batch.compute_seconds * good, good)

    def count_failure(self, seconds: float) -> None:
        """A request got an error instead of an answer, after so many seconds."""
        with self._lock:
            self._requests["fail"].add(seconds)

    def count_translation(self, *, reading: float, writing: float) -> None:
        """A request's bytes became numbers and its numbers bytes, in so many seconds."""
        with self._lock:
            self._requests["compute_input"].add(reading)
            self._requests["compute_output"].add(writing)

    def report(self) -> dict[str, Any]:
        """An entry of the protocol's `model_stats`."""
        nothing = Duration().report()
        with self._lock:
            stats = {kind: self._requests[kind].report() for kind in _KINDS}
            batches = [
                {
                    "batch_size": rows,
                    # Rows are copied into a batch and out of it while it is computed.
                    "compute_input": nothing,
                    "compute_infer": duration.report(),
                    "compute_output": nothing,
                }
                for rows, duration in sorted(self._batches.items())
            ]
            return {
                "name": self.name,
                "version": self.version,
                "last_inference": round(self._last * 1000),
                "inference_count": self._rows,
                "execution_count": sum(duration.count for duration in self._batches.values()),
                "inference_stats": {**stats, "cache_hit": nothing, "cache_miss": nothing},
                "response_stats": {},
                "batch_stats": batches,
                "memory_usage": [],
            }


class RequestTimer:
    """Times one request, from its bytes to those of its answer; counted when the block ends, whichever way it does.

    Args:
        statistics: Of the model that is asked.
    """

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def __enter__(self) -> Self:
        """The request is here."""
        self._times = [time.perf_counter()]
        return self

    def lap(self) -> None:
        """The next part is done, of three: its bytes are here; they are numbers; the answer's numbers are there."""
        self._times.append(time.perf_counter())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The answer's bytes are there, or an error is answered instead."""
        ended = time.perf_counter()
        if isinstance(error, Exception):
            self._statistics.count_failure(ended - self._times[0])
        elif error is None:
            _, received, decoded, predicted = self._times
            self._statistics.count_translation(reading=decoded - received, writing=ended - predicted)
