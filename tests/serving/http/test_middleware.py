from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dubio.models.errors import ModelError, UnreadableCheckpoint
from dubio.serving.errors import Overloaded, UnknownModel
from dubio.serving.http import problem_details
from dubio.serving.http.middleware import FastPath, Observer
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


class Noting:
    """Notes what reaches the framework."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        await self.app(scope, receive, send)


def fast_path() -> tuple[FastPath, Noting]:
    router = APIRouter(prefix="/v9")

    @router.post("/models/{name}/echo")
    async def echo(request: Request, name: str) -> Response:
        if name == "unknown":
            raise UnknownModel("There is no such model.")
        if name == "busy":
            raise Overloaded("Too much waits.", retry_after=7)
        if name == "broken":
            raise RuntimeError("a defect")
        body = (await request.body()).decode()
        return JSONResponse({"name": name, "body": body, "route": request.scope["route"].path})

    @router.get("/models/{name}")
    async def show(request: Request, name: str) -> Response:
        return JSONResponse({"shown": name})

    app = FastAPI(redirect_slashes=False)
    app.include_router(router)
    problem_details.install(app)
    noting = Noting(app)
    return FastPath(noting, router.routes), noting


def ask(app: ASGIApp, act: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> httpx.Response:
    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["request_id"] = "r"
        await app(scope, receive, send)

    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(named), base_url="http://test") as client:
            return await act(client)

    return asyncio.run(run())


def test_the_fast_path_answers_as_the_framework_does_without_asking_it() -> None:
    fast, noting = fast_path()
    answers = [ask(app, lambda c: c.post("/v9/models/a%20b/echo", content="hi")) for app in (fast, noting.app)]
    assert noting.paths == []
    assert answers[0].status_code == answers[1].status_code == 200
    assert answers[0].json()["name"] == answers[1].json()["name"] == "a b"
    assert answers[0].json()["body"] == "hi"
    assert answers[0].json()["route"] == "/v9/models/{name}/echo"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v9/models/a", 200),
        ("GET", "/v9/models/a/echo", 405),
        ("POST", "/v9/models/a/b/echo", 404),
        ("POST", "/v9/models/a/echo/", 404),
        ("POST", "/v9/models//echo", 404),
        ("POST", "/elsewhere", 404),
    ],
)
def test_everything_else_goes_to_the_framework(method: str, path: str, status: int) -> None:
    fast, noting = fast_path()
    assert ask(fast, lambda c: c.request(method, path)).status_code == status
    assert noting.paths == [path]


@pytest.mark.parametrize(("name", "status"), [("unknown", 404), ("busy", 503)])
def test_errors_are_answered_by_the_same_table(name: str, status: int) -> None:
    fast, noting = fast_path()
    answers: list[Any] = [ask(app, lambda c: c.post(f"/v9/models/{name}/echo")) for app in (fast, noting.app)]
    assert answers[0].status_code == status
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers.get("retry-after") == answers[1].headers.get("retry-after")


def test_what_nobody_expected_is_left_to_the_outermost_layer() -> None:
    fast, _ = fast_path()
    with pytest.raises(RuntimeError, match="a defect"):
        ask(fast, lambda c: c.post("/v9/models/broken/echo"))
