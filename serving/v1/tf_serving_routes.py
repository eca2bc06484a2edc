"""The predict call of TensorFlow Serving's REST API and of KServe's V1 protocol, for those who come from there."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from dubio.models import Prediction
from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.http.recording import HEADERS, PARAMETER, Recorder
from dubio.serving.service import PredictionService
from dubio.serving.settings import Settings
from dubio.serving.v1.decode import DecodedRequest
from dubio.serving.v1.encode import encode_tf_serving
from dubio.serving.v1.exchange import Exchange
from dubio.serving.v1.tf_serving import TFServingRequest, TFServingResponse, decode_request
from dubio.serving.wire.effort import Readers
from dubio.serving.wire.schema import ForeignError, describe_content, describe_errors

_DOCS: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"description": "Predicted", "model": TFServingResponse, "headers": HEADERS},
        **describe_errors({"model": ForeignError}, 400, 404, 408, 413, 415, 503, 504),
    },
    "openapi_extra": {
        "parameters": [PARAMETER],
        "requestBody": {"required": True, "content": describe_content(TFServingRequest)},
    },
}


def build(service: PredictionService, settings: Settings, readers: Readers, recorder: Recorder) -> ScopedRouter:
    """The `:predict` routes around `service`."""
    router = ScopedRouter(Scope.INFER, prefix="/v1", tags=["v1"])

    exchange = Exchange(service, settings, readers, recorder)

    async def predict(request: Request, name: str, version: str | None) -> Response:
        model = service.repository.get(name, version)

        def encode(prediction: Prediction, asked: DecodedRequest) -> bytes:
            return encode_tf_serving(prediction, model=model, images=asked.images)

        return await exchange.answer(request, model, decode_request, encode)

    @router.post("/models/{name}:predict", summary="Predict as TensorFlow Serving and KServe V1 do", **_DOCS)
    async def predict_as_tf_serving(request: Request, name: str) -> Response:
        return await predict(request, name, None)

    @router.post("/models/{name}/versions/{version}:predict", summary="The same with a version of a model", **_DOCS)
    async def predict_as_tf_serving_with_version(request: Request, name: str, version: str) -> Response:
        return await predict(request, name, version)

    return router
