from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dubio.models import InputSpec, Predictor
from dubio.serving.batching import Budget, Policy
from dubio.serving.errors import DeadlineExceeded
from dubio.serving.executor import Executor
from dubio.serving.http.recording import Recorder
from dubio.serving.repository.repository import ServedModel
from dubio.serving.service import Explainer, PredictionService
from dubio.serving.telemetry.telemetry import Telemetry
from dubio.serving.v2.decode import DecodedRequest, default_outputs
from dubio.serving.v2.exchange import Exchange, takes_long
from dubio.serving.wire.effort import Readers

RECORDING = Recorder(None, wait_seconds=1.0).begin(None, "one")
IMAGES = InputSpec(kind="image", shape=(1, 8, 8), mean=(4.0,), std=(4.0,), low=0.0, high=255.0)


@pytest.mark.parametrize("binary", [False, True])
def test_image_files_are_read_off_the_event_loop_however_their_type_is_spelled(binary: bool) -> None:
    for body in (b'"BYTES"', rb'"\u0042YTES"', b" " * 70_000 + b'"BYTES"'):
        assert takes_long(body, IMAGES, binary=binary)
    assert not takes_long(b'{"inputs": [{"name": "input", "shape": [1, 1, 8, 8]}]}', IMAGES, binary=binary)


@pytest.fixture
def exchange(settings: Callable) -> Iterator[Exchange]:
    executor = Executor(threads=1, torch_threads=1)
    policy, telemetry = Policy(64), Telemetry()
    service = PredictionService(
        None,  # type: ignore[arg-type]  # models are handed in
        executor,
        telemetry,
        Budget(1000, 10**9),
        policy,
        timeout=30,
        stalled_seconds=30,
        hung_seconds=30,
        explainer=Explainer(),
    )
    yield Exchange(service, settings(max_rows=7), Readers(1))
    executor.close()
    service.explainer.close()


def test_what_is_long_is_read_in_a_thread(exchange: Exchange, predictor: Predictor) -> None:
    model = ServedModel("bars", "1", predictor)
    seen = []

    def decode(*, model: object, effort: object) -> DecodedRequest:
        seen.append((threading.current_thread() is threading.main_thread(), model, effort))
        return DecodedRequest(np.zeros((1, 1, 8, 8), np.float32), default_outputs(binary=True))

    for long in (False, True):
        asyncio.run(exchange.decode(model, decode, long=long))
    assert [(main, effort is None) for main, _, effort in seen] == [(True, True), (False, False)]
    assert {(asked.name, asked.classes, asked.committee, asked.max_rows) for _, asked, _ in seen} == {
        ("bars", 4, 16, 7)
    }


@pytest.mark.parametrize(("transport", "request_"), [(0.05, None), (None, 0.05), (0.05, 20.0), (20.0, 0.05)])
def test_the_shorter_of_two_times_counts(
    exchange: Exchange, predictor: Predictor, bars: np.ndarray, transport: float | None, request_: float | None
) -> None:
    model = ServedModel("bars", "1", predictor)
    decoded = DecodedRequest(bars[:2], default_outputs(binary=True), timeout=request_)
    held = threading.Event()
    exchange.service.executor._pool.submit(held.wait, 20)
    try:
        with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
            asyncio.run(exchange.predict(model, decoded, RECORDING, transport))
    finally:
        held.set()


def test_an_answer_is_the_models(exchange: Exchange, predictor: Predictor, bars: np.ndarray) -> None:
    decoded = DecodedRequest(bars[:2], default_outputs(binary=True))
    prediction = asyncio.run(exchange.predict(ServedModel("bars", "1", predictor), decoded, RECORDING))
    np.testing.assert_array_equal(prediction.probabilities, predictor.predict(bars[:2]).probabilities)
    assert asyncio.run(exchange.encode(decoded, lambda: 7)) == 7
