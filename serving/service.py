"""The protocol-free middle: from numbers and a model to a prediction, batched and counted. Routes only translate."""

from __future__ import annotations

from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from dubio.models import Prediction, Samples, Work
from dubio.serving.batching import Batcher, BatchRecord, Budget, Policy
from dubio.serving.executor import Executor
from dubio.serving.repository.repository import ModelRepository, ServedModel
from dubio.serving.telemetry.metrics import Metrics
from dubio.serving.telemetry.statistics import Record, Statistics
from dubio.serving.telemetry.tracing import Tracing


class PredictionService:
    """Answers for every transport alike."""

    def __init__(
        self,
        repository: ModelRepository,
        executor: Executor,
        metrics: Metrics,
        budget: Budget,
        policy: Policy,
        timeout: float,
        statistics: Statistics,
        tracing: Tracing | None = None,
    ) -> None:
        """The collaborators are shared with whoever built them; `timeout` seconds are the longest a request waits."""
        self.repository = repository
        self._runner = executor
        self._metrics = metrics
        self._budget = budget
        self._policy = policy
        self._timeout = timeout
        self._statistics = statistics
        self._tracing = tracing or Tracing()
        # A version that was swapped out goes with the last request that uses it, and its batcher with it.
        self._batchers: WeakKeyDictionary[ServedModel, Batcher] = WeakKeyDictionary()

    async def start(self) -> None:
        """Load and check every model; the service is ready afterwards.

        Raises:
            UnreadableCheckpoint, SelfTestFailed: see `ModelRepository.load`.
        """
        await self._runner.run(self.repository.load)

    async def predict(
        self,
        model: ServedModel,
        inputs: NDArray[np.float32],
        *,
        samples: Samples = None,
        work: Work = Work.FLAG,
        timeout: float | None = None,
    ) -> Prediction:
        """Predict raw `inputs` of shape [B, *input shape], together with whatever else waits for this model.

        Cancelling drops the work if it has not begun.

        Args:
            model: from the repository.
            inputs: finite float32 rows.
            samples: how many members answer, None for the whole committee, `auto` for as many as it
                takes; under overload fewer may.
            work: how much to compute.
            timeout: seconds until the answer is of no use; at most the service's own.

        Raises:
            InvalidInput: the model refuses these inputs.
            Overloaded: too much waits already.
            DeadlineExceeded: the time is up.
        """
        batcher = self._batchers.get(model) or self._start_batcher(model)
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        prediction = await batcher.submit(inputs, samples=samples, work=work, timeout=seconds)
        self._metrics.count_prediction(model.name, model.version, prediction)
        return prediction

    def describe(self, model: ServedModel) -> dict[str, Any]:
        """What is known about a model, as plain data."""
        return {"name": model.name, "version": model.version, **model.predictor.describe()}

    def _start_batcher(self, model: ServedModel) -> Batcher:
        # Not the model itself, which would then live as long as its batcher.
        listener = partial(self._count, model.name, model.version, self._statistics.of(model))
        batcher = Batcher(model.predictor, self._runner, self._budget, self._policy, listener)
        self._batchers[model] = batcher
        return batcher

    def _count(self, name: str, version: str, history: Record, record: BatchRecord) -> None:
        history.count_batch(record)
        self._tracing.show_batch(record)
        self._metrics.count_batch(
            name,
            version,
            rows=record.rows,
            members=record.samples,
            queue_seconds=record.queue_seconds,
            compute_seconds=record.compute_seconds,
        )
