"""The Open Inference Protocol but for its infer call: health, metadata, configuration and statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import OPEN, ScopedRouter
from dubio.serving.lifecycle import Lifecycle
from dubio.serving.repository.repository import ModelRepository, ServedModel
from dubio.serving.service import PredictionService
from dubio.serving.settings import Settings
from dubio.serving.v2 import schema
from dubio.serving.v2.metadata import configure, describe_model, describe_server
from dubio.serving.v2.status import look_up, report, require_ready
from dubio.serving.wire.schema import Wire


def find_model(request: Request, repository: ModelRepository, name: str, version: str | None) -> ServedModel:
    """The model that a request's path names, by which it is counted; raises what `look_up` raises."""
    model = look_up(repository, name, version)
    request.state.model, request.state.version = model.name, model.version
    return model


def build_health(service: PredictionService, lifecycle: Lifecycle) -> ScopedRouter:
    """The `/v2/health` routes, which probes ask without a key.

    Args:
        service: Whether models are loaded, and answer.
        lifecycle: Whether the process is stopping.
    """
    router = ScopedRouter(OPEN, prefix="/v2/health", tags=["v2"])

    @router.get("/live", summary="Is the process alive?", responses=schema.describe_errors(503))
    async def live() -> dict[str, bool]:
        service.require_life()
        return {"live": True}

    @router.get("/ready", summary="May requests be sent here?", responses=schema.describe_errors(503))
    async def ready() -> dict[str, bool]:
        require_ready(service, lifecycle)
        return {"ready": True}

    return router


def build(
    service: PredictionService, settings: Settings, *, version: str, loads_on_request: Callable[[], bool]
) -> ScopedRouter:
    """The other `/v2` routes but for those of predictions and of administrators.

    Args:
        service: Answers.
        settings: Of the operator.
        version: Of the service.
        loads_on_request: Tells whether models are loaded when an administrator asks.
    """
    router = ScopedRouter(Scope.INFER, prefix="/v2", tags=["v2"])
    repository = service.repository

    # Some clients ask with a slash, some without, and few follow a redirect.
    @router.get("/", include_in_schema=False)
    @router.get("", summary="What answers, and what it can do", **_docs(schema.ServerMetadata))
    async def show_server() -> Response:
        return _json(describe_server(version, loads_on_request=loads_on_request()))

    # Before the models' own routes, so that it is not taken for a model.
    @router.get("/models/stats", summary="What all models did", **_docs(schema.StatisticsReport))
    async def count_all() -> Response:
        return _json(report(service, repository.all_versions()))

    def add(path: str, summary: str, kind: type[Wire], answer: Any) -> None:
        """Answer `path` for a model, and for a version of it."""

        docs = _docs(kind, 404, 503)

        @router.get("/models/{name}" + path, summary=summary, **docs)
        async def of_model(request: Request, name: str) -> Response:
            return _json(answer(find_model(request, repository, name, None), None))

        @router.get("/models/{name}/versions/{version}" + path, summary=f"{summary} (of a version)", **docs)
        async def of_version(request: Request, name: str, version: str) -> Response:
            return _json(answer(find_model(request, repository, name, version), version))

    def count(model: ServedModel, version: str | None) -> dict[str, Any]:
        return report(service, repository.all_versions(model.name) if version is None else [model])

    def describe(model: ServedModel, version: str | None) -> dict[str, Any]:
        return describe_model(model, repository.versions(model.name))

    def is_ready(model: ServedModel, version: str | None) -> dict[str, Any]:
        service.require_progress(model)
        return {"name": model.name, "ready": True}

    add("", "A model's tensors", schema.ModelMetadata, describe)
    add("/ready", "May this model be asked?", schema.ModelReady, is_ready)
    add("/config", "A model's configuration", schema.ModelConfig, lambda model, _: configure(model, settings.max_rows))
    add("/stats", "What a model did", schema.StatisticsReport, count)
    return router


def _docs(kind: type[Wire], *statuses: int) -> dict[str, Any]:
    described = {200: {"description": "Described", "model": kind}}
    return {"response_class": Response, "responses": {**described, **schema.describe_errors(*statuses)}}


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
