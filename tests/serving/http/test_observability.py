from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
from fastapi import FastAPI

from dubio.models.errors import ModelError, UnreadableCheckpoint
from dubio.serving.http import problem_details
from dubio.serving.http.observability import Observer
from dubio.serving.lifecycle import Lifecycle
from dubio.serving.telemetry.telemetry import Telemetry


def broken_app(error: Exception) -> tuple[FastAPI, Telemetry]:
    app, telemetry = FastAPI(), Telemetry()

    @app.get("/v1/broken")
    async def broken() -> None:
        raise error

    problem_details.install(app)
    app.add_middleware(Observer, telemetry=telemetry, lifecycle=Lifecycle())
    return app, telemetry


@pytest.mark.parametrize(
    "error", [RuntimeError("secret"), ModelError("secret"), UnreadableCheckpoint("/secret", "secret")]
)
def test_what_nobody_expected_is_a_500_without_a_trace(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    app, telemetry = broken_app(error)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get("/v1/broken", headers={"X-Request-Id": "mine-1"})

    with caplog.at_level(logging.ERROR, logger="dubio"):
        response = asyncio.run(ask())
    assert response.status_code == 500
    assert response.headers["x-request-id"] == response.json()["request_id"] == "mine-1"
    assert "secret" not in response.text
    assert "mine-1" in caplog.text
    assert "secret" in caplog.text
    assert (
        'dubio_requests_total{model="",route="/v1/broken",status="500",version=""} 1.0'
        in telemetry.metrics.render().decode()
    )


def test_a_request_id_that_could_forge_a_header_or_log_is_replaced(client: httpx.Client) -> None:
    for given in ["a b", "x" * 129, "é"]:
        answered = client.get("/v2/health/live", headers={"X-Request-Id": given.encode()}).headers["x-request-id"]
        assert answered != given
        assert len(answered) == 32


def test_every_answer_is_named(client: httpx.Client) -> None:
    ids = {client.get(path).headers["x-request-id"] for path in ["/", "/v2/health/live", "/nowhere", "/metrics"]}
    assert len(ids) == 4
