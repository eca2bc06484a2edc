"""The Open Inference Protocol's repository extension. `serving/http/auth.py` lets only administrators come here."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dubio.serving.errors import ControlRefused
from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.http.request import read_body
from dubio.serving.repository.repository import ModelRepository
from dubio.serving.settings import Settings
from dubio.serving.v2 import schema
from dubio.serving.wire.envelope import read
from dubio.serving.wire.schema import Wire, describe_content, reference

_EMPTY = {200: {"description": "Done", "content": {}}}


def build(repository: ModelRepository, settings: Settings) -> ScopedRouter:
    """The `/v2/repository` routes around `repository`."""
    router = ScopedRouter(Scope.ADMIN, prefix="/v2/repository", tags=["v2"])

    async def body(request: Request) -> bytes:
        given = await read_body(request, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
        return given.strip() or b"{}"  # clients that have nothing to say send nothing

    def refuse_contradictions() -> None:
        if settings.model_control == "poll":
            raise ControlRefused(
                "Expected `model_control` to be none or explicit for loading and unloading by request, but it is poll: "
                "the directory says what is served; change it there."
            )
        if settings.workers > 1:
            raise ControlRefused(
                f"Expected one worker for loading and unloading by request, but there are {settings.workers}, and a "
                "request reaches one of them only; start the service with `model_control` poll."
            )

    @router.post("/index", summary="What there is, loaded or not", **_docs(schema.IndexRequest, _INDEX))
    async def index(request: Request) -> Response:
        asked = read(await body(request), schema.IndexRequest)
        states = await asyncio.to_thread(repository.index)
        lines = [
            {"name": each.name, "version": each.version, "state": each.state.value, "reason": each.reason}
            for each in states
            if not asked.ready or each.state == "READY"
        ]
        return Response(orjson.dumps(lines), media_type="application/json")

    @router.post(
        "/models/{name}/load",
        summary="Load what is new or changed of a model",
        **_docs(schema.LoadRequest, _EMPTY, 404, 409),
    )
    async def load(request: Request, name: str) -> Response:
        read(await body(request), schema.LoadRequest)
        refuse_contradictions()
        await repository.load_model(name)
        return Response()

    @router.post(
        "/models/{name}/unload",
        summary="Take a model out of service",
        **_docs(schema.UnloadRequest, _EMPTY, 404, 409),
    )
    async def unload(request: Request, name: str) -> Response:
        read(await body(request), schema.UnloadRequest)
        refuse_contradictions()
        await repository.unload_model(name)
        return Response()

    return router


_INDEX = {
    200: {
        "description": "One entry for every version",
        "content": {"application/json": {"schema": {"type": "array", "items": reference(schema.IndexEntry)}}},
    }
}


def _docs(kind: type[Wire], done: dict[int, Any], *statuses: int) -> dict[str, Any]:
    return {
        "response_class": Response,
        "responses": {**done, **schema.describe_errors(400, 401, 403, 408, 413, 415, *statuses)},
        "openapi_extra": {"requestBody": {"content": describe_content(kind)}},
    }
