"""The routes of true labels: those who asked tell what was right, and everybody sees how good the answers were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.http.request import read_body
from dubio.serving.service import PredictionService
from dubio.serving.settings import Settings
from dubio.serving.v1 import feedback_schema as schema
from dubio.serving.v1.review_routes import require
from dubio.serving.wire.envelope import read
from dubio.serving.wire.schema import Problem, describe_content, describe_errors

if TYPE_CHECKING:  # which brings the database's libraries along, and most services have no store
    import sqlalchemy as sa

    from dubio.serving.store.store import Store

_PROBLEM = {"content": describe_content(Problem, "application/problem+json")}
_FEEDBACK_DOCS: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"description": "Joined", "model": schema.FeedbackTaken},
        **describe_errors(_PROBLEM, 400, 408, 409, 413, 415, 422, 503),
    },
    "openapi_extra": {"requestBody": {"required": True, "content": describe_content(schema.Feedback)}},
}
_QUALITY_DOCS: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"description": "Measured", "model": schema.Quality},
        **describe_errors(_PROBLEM, 404, 409, 503),
    },
}


def build(store: Store | None, service: PredictionService, settings: Settings) -> ScopedRouter:
    """The routes around the store, if there is one."""
    router = ScopedRouter(Scope.INFER, prefix="/v1", tags=["reviews"])

    @router.post("/feedback", summary="True labels, by request", **_FEEDBACK_DOCS)
    async def take_feedback(request: Request) -> Response:
        known = require(store)
        from dubio.serving.store import feedback

        body = await read_body(request, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
        given = read(body, schema.Feedback).labels
        truths = [feedback.Truth(each.request_id, each.row, each.label, each.new_label) for each in given]
        unknown = await known.change(lambda connection: feedback.join(connection, truths))
        return _json({"joined": len(truths) - len(unknown), "not_stored": unknown})

    @router.get("/models/{name}/quality", summary="How good the answers were", **_QUALITY_DOCS)
    async def show_quality(request: Request, name: str) -> Response:
        model = service.repository.get(name)
        request.state.model, request.state.version = model.name, model.version
        known = require(store)
        from dubio.serving.store import quality

        def measure(connection: sa.Connection) -> list[dict[str, Any]]:
            return quality.measure(connection, model.name, quality.stored_versions(connection, model.name))

        versions = await known.read(measure)
        return _json({"model": model.name, "confidence": quality.CONFIDENCE, "versions": versions})

    return router


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
