"""The protocol-free middle: from numbers and a model to a prediction, batched and counted. Routes only translate."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from dubio.models import Prediction, Samples, Work, device
from dubio.models.memory import exhausted
from dubio.serving.batching import Batcher, Budget, Policy
from dubio.serving.compute.remote_predictor import AnyPredictor
from dubio.serving.errors import ComputationLost, DeadlineExceeded, DeviceLost, NotReady, OutOfMemory
from dubio.serving.executor import Executor
from dubio.serving.repository.registry import ServedModel
from dubio.serving.repository.repository import ModelRepository
from dubio.serving.shadow.shadows import Shadows
from dubio.serving.store.drawn import Drawn
from dubio.serving.telemetry.telemetry import Telemetry

_log = logging.getLogger("dubio")


class Explainer:
    """One thread, in which one request is explained after the other; what nobody waits for any more is left out."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="dubio-explain")

    async def explain(
        self, predictor: AnyPredictor, inputs: NDArray[np.float32], prediction: Prediction, seconds: float
    ) -> Prediction:
        """The same prediction with its explanations.

        Args:
            predictor: Who predicted.
            inputs: Raw rows.
            prediction: Of these rows, with the flag.
            seconds: Until the answer is of no use.

        Raises:
            DeadlineExceeded: The time is up.
            OutOfMemory: There was not enough for these rows.
            ComputationLost: The accelerator failed, or the process that computes.
        """
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(self._pool.submit(predictor.explain, inputs, prediction))
        except Exception as error:
            if exhausted(error) is not None:
                raise OutOfMemory() from error
            if device.lost(error):
                _log.error("The device is lost to this process: %s", error)
                raise DeviceLost() from error
            if not isinstance(error, TimeoutError):
                raise
            raise DeadlineExceeded(
                "Expected the explanations within the time for an answer, but they were not ready; send fewer rows, "
                "leave out `parameters.explain`, or allow more time."
            ) from error

    def close(self) -> None:
        """Wait for what is running, drop what has not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class PredictionService:
    """Answers for every transport alike.

    Attributes:
        repository: The models.
        executor: Runs predictions.
        telemetry: Is told of every batch and prediction.
        budget: What may wait.
        policy: How to batch.
        timeout: Seconds that a request waits at most.
        stalled_seconds: How long a batch may take until its model is not ready.
        hung_seconds: How long until the process is taken for one that will never recover.
        explainer: Explains answers, one request after the other.
        shadows: Are offered copies of what was answered; None where there are none.
    """

    repository: ModelRepository
    executor: Executor
    telemetry: Telemetry
    budget: Budget
    policy: Policy
    timeout: float
    stalled_seconds: float
    hung_seconds: float
    explainer: Explainer
    shadows: Shadows | None = None

    def __post_init__(self) -> None:
        # A version that was swapped out goes with the last request that uses it, and its batcher with it.
        self._batchers: WeakKeyDictionary[ServedModel, Batcher] = WeakKeyDictionary()

    async def predict(
        self,
        model: ServedModel,
        inputs: NDArray[np.float32],
        *,
        samples: Samples = None,
        work: Work = Work.FLAG,
        timeout: float | None = None,
        explain: bool = False,
        drawn: Drawn | None = None,
    ) -> Prediction:
        """Predict raw `inputs` of shape [B, *input shape], together with whatever else waits for this model.

        Cancelling drops the work if it has not begun.

        Args:
            model: From the repository.
            inputs: Finite rows.
            samples: How many members answer, None for the whole committee, `auto` for as many as it takes; under
                overload fewer may.
            work: How much to compute.
            timeout: Seconds until the answer is of no use; at most the service's own.
            explain: Whether to say of each row why it was flagged, or was not. That comes after the batch, in a thread
                of its own, so that it holds up nobody whose rows shared the batch.
            drawn: The rows that the store keeps, if there is one; of them it keeps what a shadow says, too.

        Raises:
            InvalidInput: The model refuses these inputs.
            Overloaded: Too much waits already.
            DeadlineExceeded: The time is up.
        """
        batcher = self._batchers.get(model) or self._start_batcher(model)
        seconds = self.timeout if timeout is None else min(timeout, self.timeout)
        until = time.monotonic() + seconds
        prediction = await batcher.submit(inputs, samples=samples, work=work, timeout=seconds)
        self.telemetry.count_prediction(model, prediction)
        if self.shadows is not None and samples is None and work == Work.FLAG:
            self.shadows.offer(model, inputs, prediction, time.monotonic() - until + seconds, drawn)
        if not explain:
            return prediction
        self.budget.take(inputs, 0.0)  # once more: explanations wait, too
        try:
            return await self.explainer.explain(model.predictor, inputs, prediction, until - time.monotonic())
        except ComputationLost as error:
            self.executor.failure = error.why
            raise
        finally:
            self.budget.give_back(inputs)

    def require_life(self) -> None:
        """Check that the process can still answer.

        Raises:
            NotReady: Only a new process will help.
        """
        if reason := self.beyond_help:
            raise NotReady(f"{reason}; restart the process.")

    def require_progress(self, model: ServedModel | None = None) -> None:
        """Check that what was begun comes to an end.

        Args:
            model: Whose batches are meant; None for those of all, and of versions that are gone.

        Raises:
            NotReady: A batch takes too long, or the device failed.
        """
        if (lost := self.executor.lost) is not None:
            raise NotReady(f"{lost}; ask another service.")
        if model is None:
            seconds, what = self.executor.busy_seconds, "A batch"
        else:
            batcher = self._batchers.get(model)
            seconds, what = 0.0 if batcher is None else batcher.busy_seconds, f"A batch of model {model.name!r}"
        if seconds > self.stalled_seconds:
            raise NotReady(f"{what} has been computed for {seconds:.0f} s and is not done; ask another service.")

    @property
    def beyond_help(self) -> str | None:
        """Why only a new process will help; None where that is not so."""
        if (lost := self.executor.lost) is not None:
            return lost
        if self.executor.busy_seconds > self.hung_seconds:
            return f"A batch has been computed for more than {self.hung_seconds:g} s"
        return None

    def describe(self, model: ServedModel) -> dict[str, Any]:
        """What is known about a model, as plain data."""
        return {"name": model.name, "version": model.version, **model.facts.card}

    def _start_batcher(self, model: ServedModel) -> Batcher:
        listener = self.telemetry.batch_listener(model)
        batcher = Batcher(model.predictor, self.executor, self.budget, self.policy, listener)
        self._batchers[model] = batcher
        return batcher
