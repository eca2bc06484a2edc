"""The predict call of TensorFlow Serving's REST API and of KServe's V1 protocol, for those who come from there."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.http.recording import HEADERS, PARAMETER, Recorder
from dubio.serving.http.request import cancel_on_disconnect, offload_if, read_body
from dubio.serving.service import PredictionService
from dubio.serving.settings import Settings
from dubio.serving.v1.decode import DecodedRequest, takes_long
from dubio.serving.v1.encode import LONG_EXPLAINED_ROWS, LONG_ROWS, encode_tf_serving
from dubio.serving.v1.tf_serving import TFServingRequest, TFServingResponse, decode_request
from dubio.serving.wire.effort import Effort, Readers
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

    async def predict(request: Request, name: str, version: str | None) -> Response:
        model = service.repository.get(name, version)
        request.state.model, request.state.version = model.name, model.version
        recording = recorder.begin(request)
        spec, committee = model.predictor.input, model.predictor.committee.num_samples
        with service.telemetry.timer(model) as timer:
            body = await read_body(request, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
            timer.lap()
            effort = Effort(settings.timeout_seconds) if takes_long(body, spec) else None

            def decode() -> DecodedRequest:
                return decode_request(body, spec=spec, committee=committee, max_rows=settings.max_rows, effort=effort)

            decoded = decode() if effort is None else await readers.run(decode, effort)
            request.state.rows = len(decoded.inputs)
            timer.lap()
            async with cancel_on_disconnect(request):
                left = None if effort is None else max(0.0, round(effort.seconds, 2))  # of all the time there was
                prediction = await service.predict(
                    model, decoded.inputs, samples=decoded.samples, timeout=left, explain=decoded.explain
                )
            timer.lap()
            recording.keep(model, decoded.inputs, prediction, decoded.instance)
            answer = await offload_if(
                len(decoded.inputs) > (LONG_EXPLAINED_ROWS if decoded.explain else LONG_ROWS),
                lambda: encode_tf_serving(prediction, model=model, images=decoded.images),
            )
            return Response(answer, headers=await recording.headers(), media_type="application/json")

    @router.post("/models/{name}:predict", summary="Predict as TensorFlow Serving and KServe V1 do", **_DOCS)
    async def predict_as_tf_serving(request: Request, name: str) -> Response:
        return await predict(request, name, None)

    @router.post("/models/{name}/versions/{version}:predict", summary="The same with a version of a model", **_DOCS)
    async def predict_as_tf_serving_with_version(request: Request, name: str, version: str) -> Response:
        return await predict(request, name, version)

    return router
