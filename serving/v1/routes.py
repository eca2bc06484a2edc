"""The routes of `/v1`: what is loaded, and predictions with their doubts."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dubio.models import Prediction
from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.http.recording import HEADERS, PARAMETER, Recorder
from dubio.serving.service import PredictionService
from dubio.serving.settings import Settings
from dubio.serving.v1 import schema
from dubio.serving.v1.decode import DecodedRequest, decode_request
from dubio.serving.v1.encode import encode_response
from dubio.serving.v1.exchange import Exchange
from dubio.serving.v1.tf_serving import describe_status
from dubio.serving.wire.effort import Readers
from dubio.serving.wire.schema import Problem, describe_content, describe_errors

_PROBLEM = {"content": describe_content(Problem, "application/problem+json")}
_PREDICT_DOCS: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"description": "Predicted", "model": schema.PredictResponse, "headers": HEADERS},
        **describe_errors(_PROBLEM, 400, 404, 408, 413, 415, 422, 503, 504),
    },
    "openapi_extra": {
        "parameters": [PARAMETER],
        "requestBody": {"required": True, "content": describe_content(schema.PredictRequest)},
    },
}
_DESCRIBED: dict[int | str, Any] = {
    200: {"description": "Described", "content": {"application/json": {"schema": {"type": "object"}}}}
}


def build(service: PredictionService, settings: Settings, readers: Readers, recorder: Recorder) -> ScopedRouter:
    """The `/v1` routes that predict."""
    router = ScopedRouter(Scope.INFER, prefix="/v1", tags=["v1"])

    exchange = Exchange(service, settings, readers, recorder)

    async def predict(request: Request, name: str | None) -> Response:
        model = service.repository.get(name)

        def encode(prediction: Prediction, asked: DecodedRequest) -> bytes:
            return encode_response(prediction, model=model, request_id=asked.id, images=asked.images)

        return await exchange.answer(request, model, decode_request, encode)

    @router.post("/models/{name}/predict", summary="Predict with a model", **_PREDICT_DOCS)
    async def predict_with(request: Request, name: str) -> Response:
        return await predict(request, name)

    @router.post("/predict", summary="Predict with the default model", **_PREDICT_DOCS)
    async def predict_with_default(request: Request) -> Response:
        return await predict(request, None)

    return router


def build_cards(service: PredictionService) -> ScopedRouter:
    """The `/v1` routes that describe the models; after all that begin as theirs do."""
    router = ScopedRouter(Scope.INFER, prefix="/v1", tags=["v1"])

    @router.get("/models", summary="What is loaded", response_class=Response, responses=_DESCRIBED)
    async def list_models() -> Response:
        return _json({"models": [service.describe(model) for model in service.repository]})

    @router.get(
        "/models/{name}",
        summary="One model, with an example instance",
        response_class=Response,
        responses={**_DESCRIBED, **describe_errors(_PROBLEM, 404, 503)},
    )
    async def show_model(request: Request, name: str) -> Response:
        model = service.repository.get(name)
        request.state.model, request.state.version = model.name, model.version
        example, source = model.facts.example
        card = {**service.describe(model), "example": example, "example_source": source}
        return _json({**card, **describe_status(service.repository.versions(model.name))})

    return router


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
