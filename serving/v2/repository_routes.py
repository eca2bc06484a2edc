"""The Open Inference Protocol's repository extension. `serving/http/auth.py` lets only administrators come here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.http.request import read_body
from dubio.serving.repository.repository import ModelRepository
from dubio.serving.settings import Settings
from dubio.serving.v2 import schema
from dubio.serving.v2.control import RepositoryControl
from dubio.serving.wire.envelope import read
from dubio.serving.wire.schema import Incoming, Wire, describe_content

_EMPTY = {200: {"description": "Done", "content": {}}}
_INDEX = {200: {"description": "One entry for every version", "model": list[schema.IndexEntry]}}

Asked = TypeVar("Asked", bound=Incoming)


def build(repository: ModelRepository, settings: Settings) -> ScopedRouter:
    """The `/v2/repository` routes around `repository`."""
    router = ScopedRouter(Scope.ADMIN, prefix="/v2/repository", tags=["v2"])
    control = RepositoryControl(repository, settings)

    async def asked(request: Request, kind: type[Asked]) -> Asked:
        body = await read_body(request, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
        return read(body.strip() or b"{}", kind)  # clients that have nothing to say send nothing

    async def change(request: Request, kind: type[Incoming], work: Callable[[str], Awaitable[None]]) -> Response:
        await asked(request, kind)
        await work(request.path_params["name"])
        return Response()

    @router.post("/index", summary="What there is, loaded or not", **_docs(schema.IndexRequest, _INDEX))
    async def index(request: Request) -> Response:
        only_ready = (await asked(request, schema.IndexRequest)).ready
        states = await control.index(only_ready=bool(only_ready))
        return Response(orjson.dumps(states), media_type="application/json")

    load_docs, unload_docs = (_docs(kind, _EMPTY, 404, 409) for kind in (schema.LoadRequest, schema.UnloadRequest))

    @router.post("/models/{name}/load", summary="Load what is new or changed of a model", **load_docs)
    async def load(request: Request, name: str) -> Response:
        return await change(request, schema.LoadRequest, control.load)

    @router.post("/models/{name}/unload", summary="Take a model out of service", **unload_docs)
    async def unload(request: Request, name: str) -> Response:
        return await change(request, schema.UnloadRequest, control.unload)

    return router


def _docs(kind: type[Wire], done: dict[int, Any], *statuses: int) -> dict[str, Any]:
    return {
        "response_class": Response,
        "responses": {**done, **schema.describe_errors(400, 401, 403, 408, 413, 415, *statuses)},
        "openapi_extra": {"requestBody": {"content": describe_content(kind)}},
    }
