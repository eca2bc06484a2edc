from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from dubio.models import Predictor
from dubio.models.errors import InvalidInput
from dubio.serving.batching import Budget, Policy
from dubio.serving.executor import Executor
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.repository import ModelRepository, ModelSource
from dubio.serving.service import Explainer, PredictionService
from dubio.serving.telemetry.telemetry import Telemetry


def test_from_checkpoint_to_a_counted_prediction(checkpoint: Path, predictor: Predictor, bars: np.ndarray) -> None:
    telemetry, executor = Telemetry(), Executor(threads=1, torch_threads=1)
    repository = ModelRepository([ModelSource("bars", checkpoint)], Loader(device="cpu", trusted=()))
    budget, policy = Budget(1000, 10**9), Policy(64)
    service = PredictionService(repository, executor, telemetry, budget, policy, 60.0, 60.0, 300.0, Explainer())

    async def run() -> None:
        await executor.submit(repository.load)
        model = repository.get()
        prediction = await service.predict(model, bars, samples=4)
        alone = predictor.predict(bars, samples=4).mc_mean
        np.testing.assert_allclose(prediction.mc_mean, alone, rtol=1e-3, atol=1e-6)  # by whichever strategy
        with pytest.raises(InvalidInput):
            await service.predict(model, bars[:, :, :3])
        assert service.describe(model)["classes"] == list(predictor.classes)

    asyncio.run(run())
    executor.close()
    assert telemetry.metrics.registry.get_sample_value("dubio_rows_total", {"model": "bars", "version": "1"}) == len(
        bars
    )
