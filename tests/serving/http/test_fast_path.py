from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dubio.serving.errors import Overloaded, UnknownModel
from dubio.serving.http import problem_details
from dubio.serving.http.fast_path import FastPath


class Noting:
    """Notes what reaches the framework."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        await self.app(scope, receive, send)


def build() -> tuple[FastPath, Noting]:
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


def test_a_shortcut_answers_as_the_framework_does_without_asking_it() -> None:
    short, noting = build()
    answers = [ask(app, lambda c: c.post("/v9/models/a%20b/echo", content="hi")) for app in (short, noting.app)]
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
    short, noting = build()
    assert ask(short, lambda c: c.request(method, path)).status_code == status
    assert noting.paths == [path]


@pytest.mark.parametrize(("name", "status"), [("unknown", 404), ("busy", 503)])
def test_errors_are_answered_by_the_same_table(name: str, status: int) -> None:
    short, noting = build()
    answers: list[Any] = [ask(app, lambda c: c.post(f"/v9/models/{name}/echo")) for app in (short, noting.app)]
    assert answers[0].status_code == status
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers.get("retry-after") == answers[1].headers.get("retry-after")


def test_what_nobody_expected_is_left_to_the_outermost_layer() -> None:
    short, _ = build()
    with pytest.raises(RuntimeError, match="a defect"):
        ask(short, lambda c: c.post("/v9/models/broken/echo"))
