"""The infer call of the Open Inference Protocol."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.http.recording import ASK, HEADERS, PARAMETER, Recorder
from dubio.serving.http.request import cancel_on_disconnect, choose, compress, offload_if, read_body
from dubio.serving.service import PredictionService
from dubio.serving.settings import Settings
from dubio.serving.v2 import schema
from dubio.serving.v2.decode import decode_request
from dubio.serving.v2.encode import EncodedResponse, encode_response
from dubio.serving.v2.exchange import LONG_BYTES, Exchange, takes_long
from dubio.serving.v2.routes import find_model
from dubio.serving.wire.effort import Readers
from dubio.serving.wire.schema import describe_content

# What fits into one packet is sent no faster when it is compressed.
_WORTH_COMPRESSING = 1024

_HEADER = "Inference-Header-Content-Length"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_DOCS: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "Predicted",
            "headers": {
                _HEADER: {
                    "description": "How many bytes of the answer are JSON, if any output is in binary.",
                    "schema": {"type": "integer"},
                },
                **HEADERS,
            },
            "content": {
                **describe_content(schema.InferResponse),
                "application/octet-stream": _BINARY,
            },
        },
        **schema.describe_errors(400, 404, 408, 413, 415, 503, 504),
    },
    "openapi_extra": {
        "parameters": [
            {
                "name": _HEADER,
                "in": "header",
                "description": "How many bytes of the body are JSON, the rest being tensors in binary; 0 if the whole "
                "body is one row of FP32 numbers. Without it all is JSON.",
                "schema": {"type": "integer", "minimum": 0},
            },
            PARAMETER,
        ],
        "requestBody": {
            "required": True,
            "content": {**describe_content(schema.InferRequest), "application/octet-stream": _BINARY},
        },
    },
}


def build(service: PredictionService, settings: Settings, readers: Readers, recorder: Recorder) -> ScopedRouter:
    """The infer routes around `service`; long requests are read by `readers`, answers kept by `recorder`."""
    router = ScopedRouter(Scope.INFER, prefix="/v2", tags=["v2"])
    exchange = Exchange(service, settings, readers)

    async def infer(request: Request, name: str, version: str | None) -> Response:
        model = find_model(request, service.repository, name, version)
        recording = recorder.begin(request.headers.get(ASK), request.state.request_id)
        with service.telemetry.timer(model) as timer:
            body = await read_body(request, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
            timer.lap()
            header = request.headers.get(_HEADER)
            long = takes_long(body, model.facts.input, binary=header is not None)
            decoded = await exchange.decode(model, partial(decode_request, body, header_length=header), long=long)
            request.state.rows = len(decoded.inputs)
            timer.lap()
            async with cancel_on_disconnect(request):
                prediction = await exchange.predict(model, decoded, recording)
            timer.lap()
            recording.keep(model, decoded.inputs, prediction, decoded.instance)
            answer = await exchange.encode(decoded, lambda: encode_response(prediction, request=decoded, model=model))
            return await _respond(request, answer, await recording.headers())

    @router.post("/models/{name}/infer", summary="Predict with a model", **_DOCS)
    async def infer_with(request: Request, name: str) -> Response:
        return await infer(request, name, None)

    @router.post("/models/{name}/versions/{version}/infer", summary="Predict with a version of a model", **_DOCS)
    async def infer_with_version(request: Request, name: str, version: str) -> Response:
        return await infer(request, name, version)

    return router


async def _respond(request: Request, answer: EncodedResponse, headers: dict[str, str]) -> Response:
    body = answer.body
    media_type = "application/json"
    if answer.header_length is not None:
        headers[_HEADER] = str(answer.header_length)
        media_type = "application/octet-stream"
    encoding = choose(request.headers.get("accept-encoding"))
    if encoding is not None and len(body) >= _WORTH_COMPRESSING:
        body = await offload_if(len(body) > LONG_BYTES, lambda: compress(answer.body, encoding=encoding))
        headers["Content-Encoding"] = encoding
    return Response(body, headers=headers, media_type=media_type)
