"""The natural API: what is loaded, and predictions with their doubts."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dubio.models.inputs import encoding
from dubio.serving.executor import offload_if
from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.http.request import CancelOnDisconnect, read_body
from dubio.serving.service import PredictionService
from dubio.serving.settings import Settings
from dubio.serving.v1 import schema
from dubio.serving.v1.decode import parse
from dubio.serving.v1.encode import render
from dubio.serving.v1.images import Raster, mentioned

# Parsing or writing this much takes about a millisecond; more would hold up the event loop.
_LONG_BYTES = 64 * 1024
_LONG_ROWS = 32
# Texts are divided into words, and rows looked at value by value, which takes longer.
_LONG_NATURAL_BYTES = 4 * 1024

_PROBLEM = {"application/problem+json": {"schema": schema.reference(schema.Problem)}}
_PREDICT_DOCS: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "Predicted",
            "content": {"application/json": {"schema": schema.reference(schema.PredictResponse)}},
        },
        400: {"description": "The body is not JSON", "content": _PROBLEM},
        404: {"description": "No such model", "content": _PROBLEM},
        413: {"description": "Too many rows or bytes", "content": _PROBLEM},
        422: {"description": "Not what the model eats", "content": _PROBLEM},
        503: {"description": "Not ready", "content": _PROBLEM},
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema.reference(schema.PredictRequest)}},
        }
    },
}
_CARD_DOCS: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"description": "Described", "content": {"application/json": {"schema": {"type": "object"}}}},
        404: {"description": "No such model", "content": _PROBLEM},
        422: {"description": "Not a model's name", "content": _PROBLEM},
    },
}


def build(service: PredictionService, settings: Settings) -> ScopedRouter:
    """The `/v1` routes around `service`."""
    router = ScopedRouter(Scope.INFER, prefix="/v1", tags=["v1"])

    async def predict(request: Request, name: str | None) -> Response:
        model = service.repository.get(name)
        request.state.model, request.state.version = model.name, model.version
        predictor, spec = model.predictor, model.predictor.input
        with service.telemetry.timer(model) as timer:
            body = await read_body(request, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
            timer.received()
            asked = await offload_if(
                len(body) > (_LONG_NATURAL_BYTES if spec.reader else _LONG_BYTES) or mentioned(body),
                lambda: parse(
                    body,
                    shape=spec.shape,
                    committee=predictor.committee.num_samples,
                    max_rows=settings.max_rows,
                    raster=Raster.of(spec),
                    reader=spec.reader,
                ),
            )
            request.state.rows = len(asked.inputs)
            timer.decoded()
            async with CancelOnDisconnect(request):
                prediction = await service.predict(model, asked.inputs, samples=asked.samples)
            timer.predicted()
            answer = await offload_if(
                len(asked.inputs) > _LONG_ROWS, lambda: render(prediction, model=model, request_id=asked.id)
            )
            return Response(answer, media_type="application/json")

    @router.get("/models", summary="What is loaded", **_CARD_DOCS)
    async def list_models() -> Response:
        return _json({"models": [service.describe(model) for model in service.repository]})

    @router.get("/models/{name}", summary="One model, with an example instance", **_CARD_DOCS)
    async def show_model(request: Request, name: str) -> Response:
        model = service.repository.get(name)
        request.state.model, request.state.version = model.name, model.version
        return _json({**service.describe(model), "example": encoding.example(model.predictor.input)})

    @router.post("/models/{name}/predict", summary="Predict with a model", **_PREDICT_DOCS)
    async def predict_with(request: Request, name: str) -> Response:
        return await predict(request, name)

    @router.post("/predict", summary="Predict with the default model", **_PREDICT_DOCS)
    async def predict_with_default(request: Request) -> Response:
        return await predict(request, None)

    return router


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
