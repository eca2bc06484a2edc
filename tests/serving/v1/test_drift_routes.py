"""Drift over HTTP: what counts, what is shown, and who may begin anew."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from scipy.stats import beta
from starlette.types import Receive, Send

from dubio.models import Predictor
from dubio.serving.drift.monitor import DriftMonitor
from dubio.serving.http import problem_details
from dubio.serving.http.api_keys import Scope
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.registry import ServedModel
from dubio.serving.repository.repository import ModelRepository
from dubio.serving.states import MemoryStates
from dubio.serving.v1 import drift_routes
from dubio.serving.v1.drift_routes import DriftReport

KEY = "a-good-key-for-tests-0123456789"
DRIFT = "/v1/models/bars/drift"


@pytest.fixture
def start(serve: Callable, settings: Callable) -> Callable:
    """A service, and a client of it."""

    @contextmanager
    def started(*checkpoints: Path | str, **given: Any) -> Iterator[httpx.Client]:
        with (
            serve(settings(models=tuple(map(str, checkpoints)), strategy="loop", load_trial="none", **given)) as base,
            httpx.Client(base_url=base, headers={"X-API-Key": KEY}, timeout=60) as client,
        ):
            yield client

    return started


def report(client: httpx.Client, path: str = DRIFT) -> dict[str, Any]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    DriftReport.model_validate(answer.json())
    return answer.json()


def test_rows_of_all_protocols_count(start: Callable, checkpoint: Path, predictor: Predictor, bars: np.ndarray) -> None:
    began = datetime.now(UTC)
    with start(checkpoint) as client:
        assert report(client)["rows"] == 0
        asked = [
            ("/v1/predict", {"instances": bars[:10].tolist()}),
            ("/v1/models/bars/predict", {"instances": bars[10:20].tolist()}),
            ("/v1/models/bars/predict", {"instances": bars[:9].tolist(), "parameters": {"samples": 4}}),  # no promise
            ("/v1/models/bars:predict", {"instances": bars[20:30].tolist()}),
            ("/v1/models/bars/versions/1:predict", {"instances": bars[30:40].tolist()}),
        ]
        inputs = [{"name": "input", "datatype": "FP32", "shape": [20, 1, 8, 8], "data": bars[40:].ravel().tolist()}]
        asked.append(("/v2/models/bars/infer", {"inputs": inputs}))
        asked.append(("/v2/models/bars/infer", {"inputs": inputs, "outputs": [{"name": "label"}]}))  # no promise
        for path, body in asked:
            assert client.post(path, json=body).status_code == 200, path
        shown = report(client)
        assert shown == report(client, "/v1/models/bars/versions/1/drift")
        assert client.get("/v1/models/nobody/drift").status_code == 404
        assert client.get("/v1/models/bars/versions/7/drift").status_code == 404
    flagged = int(predictor.predict(bars).flagged.sum())
    low, high = beta.ppf(0.025, flagged, 61 - flagged) if flagged else 0.0, beta.ppf(0.975, flagged + 1, 60 - flagged)
    assert shown["rows"] == 60
    assert shown["flagged"] == {
        "rows": flagged,
        "share": flagged / 60,
        "interval": pytest.approx([low, high], abs=1e-6),
        "confidence": 0.95,
        "promised": 0.05,
    }
    assert shown["e_value"] == pytest.approx((shown["e_values"]["flags"] + shown["e_values"]["p_values"]) / 2)
    assert (shown["alarm"], shown["alarm_level"]) == (None, 100)
    assert shown["false_alarm"] == pytest.approx(0.01 + 2 * 0.06)
    assert began <= datetime.fromisoformat(shown["since"]) <= datetime.now(UTC)


def test_strangers_raise_an_alarm_that_only_an_administrator_resets(
    start: Callable, checkpoint: Path, bars: np.ndarray
) -> None:
    given = {"api_keys": f"infer,admin,metrics:{KEY} infer:another-good-key-0123456789", "drift_alpha": 0.05}
    with start(checkpoint, **given) as client:
        assert client.post("/v1/predict", json={"instances": (bars + 400).tolist()}).status_code == 200
        shown = report(client)
        assert shown["e_value"] > shown["alarm_level"] == 20
        assert shown["alarm"]["rows"] <= 32
        assert datetime.fromisoformat(shown["alarm"]["time"]) <= datetime.now(UTC)
        assert 'dubio_drift_alarm{model="bars",version="1"} 1.0' in client.get("/metrics").text
        assert client.delete(DRIFT, headers={"X-API-Key": "another-good-key-0123456789"}).status_code == 403
        assert client.delete(DRIFT, headers={"X-API-Key": ""}).status_code == 401
        assert report(client)["alarm"] == shown["alarm"]

        anew = client.delete(DRIFT)
        assert (anew.status_code, anew.json()["rows"], anew.json()["alarm"]) == (200, 0, None)
        assert report(client) == anew.json()
        assert 'dubio_drift_alarm{model="bars",version="1"} 0.0' in client.get("/metrics").text
        assert client.delete("/v1/models/bars/versions/1/drift").status_code == 200


def test_without_an_administrators_key_nobody_resets(client: httpx.Client) -> None:
    for path in (DRIFT, "/v1/models/row/versions/1/drift"):
        answer = client.delete(path)
        assert (answer.status_code, answer.json()["title"]) == (403, "Forbidden")
        assert answer.json()["detail"].startswith("Administration is off")
    assert client.get(DRIFT).status_code == 200


def test_a_model_without_a_promise_is_not_watched_and_says_why(predictor: Predictor, bars: np.ndarray) -> None:
    bare = ServedModel("bars", "1", replace(predictor, detector=None))
    monitor, repository = DriftMonitor(MemoryStates(), 0.01), ModelRepository([], Loader(device="cpu", trusted=()))
    repository._registry.loaded(bare, None)
    repository._started = True
    monitor.observe(bare, bare.predictor.predict(bars))
    api = FastAPI()
    for router in drift_routes.build(repository, monitor):
        api.include_router(router)
    problem_details.install(api)

    async def asgi(scope: dict, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {}).update(request_id="r", scopes={Scope.ADMIN})
        await api(scope, receive, send)

    async def ask(method: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url="http://localhost") as client:
            return await client.request(method, DRIFT)

    shown = asyncio.run(ask("GET")).json()
    assert shown.pop("model") == {"name": "bars", "version": "1"}
    assert shown.pop("reason") == "not_calibrated"
    assert set(shown.values()) == {None}
    refused = asyncio.run(ask("DELETE"))
    assert (refused.status_code, refused.json()["title"]) == (409, "Not watched")
    assert "not_calibrated" in refused.json()["detail"]
    repository.close()


def test_a_restart_goes_on_where_a_state_folder_is_set(
    start: Callable, checkpoint: Path, second_checkpoint: Path, tmp_path: Path, bars: np.ndarray
) -> None:
    kept = {"state_folder": tmp_path / "state"}
    for served, expected in ((checkpoint, 60), (second_checkpoint, 60), (checkpoint, 120)):
        with start(f"bars={served}", **kept) as client:
            assert client.post("/v1/predict", json={"instances": bars.tolist()}).status_code == 200
            shown = report(client)
            assert shown["rows"] == expected


@pytest.mark.slow
def test_workers_count_together_and_a_restart_goes_on(
    command: Any, checkpoint: Path, tmp_path: Path, bars: np.ndarray
) -> None:
    body = {"instances": bars[:5].tolist()}

    def post(url: str) -> int:  # on a connection of its own
        return httpx.post(f"{url}/v1/predict", json=body, timeout=30).status_code

    for already in (0, 200):
        with command.started(
            f"bars={checkpoint}", "--workers", "2", "--state-folder", str(tmp_path / "state")
        ) as service:
            with ThreadPoolExecutor(8) as pool:
                assert set(pool.map(post, [service.url] * 40)) == {200}
            until = time.monotonic() + 30
            while {httpx.get(f"{service.url}{DRIFT}").json()["rows"] for _ in range(6)} != {already + 200}:
                assert time.monotonic() < until
                time.sleep(0.1)
            assert service.finish(signal.SIGTERM) == 0
