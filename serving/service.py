"""The protocol-free middle: from numbers and a model to a prediction, counted. Routes only translate."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import Prediction
from serving.examples import example_instance
from serving.metrics import Metrics
from serving.repository import ModelRepository, ServedModel
from serving.runner import Runner


class PredictionService:
    """Answers for every transport alike."""

    def __init__(self, repository: ModelRepository, runner: Runner, metrics: Metrics) -> None:
        """The collaborators are shared with whoever built them."""
        self.repository = repository
        self._runner = runner
        self._metrics = metrics

    async def start(self) -> None:
        """Load and check every model; the service is ready afterwards.

        Raises:
            UnreadableCheckpoint, SelfTestFailed: see `ModelRepository.load`.
        """
        await self._runner.run(self.repository.load)

    async def predict(
        self, model: ServedModel, inputs: NDArray[np.float32], *, samples: int | None = None
    ) -> Prediction:
        """Predict raw `inputs` of shape [B, *input shape] with `samples` members (None: the whole committee).

        Raises:
            InvalidInput: the model refuses these inputs.
        """
        prediction = await self._runner.run(partial(model.predictor.predict, inputs, samples=samples))
        self._metrics.count_prediction(model.name, prediction)
        return prediction

    def describe(self, model: ServedModel) -> dict[str, Any]:
        """What is known about a model, as plain data."""
        return {"name": model.name, "version": model.version, **model.predictor.describe()}

    def example(self, model: ServedModel) -> list[Any] | None:
        """One instance the model accepts; None when the input is too large to be read by eye."""
        spec = model.predictor.input
        return example_instance(spec.shape, low=spec.low, high=spec.high)
