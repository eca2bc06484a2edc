"""The API's description, with an example request for every loaded model that can be sent as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from dubio.models.inputs import encoding
from dubio.serving.service import PredictionService
from dubio.serving.v1 import schema as v1_schema
from dubio.serving.v1.images import ImageCodec
from dubio.serving.v2 import schema as v2_schema
from dubio.serving.v2.input_tensor import INPUT
from dubio.serving.wire.schema import Wire

_REFERENCE = "#/components/schemas/{model}"

_KINDS: tuple[type[Wire], ...] = (
    v1_schema.PredictRequest,
    v1_schema.PredictResponse,
    v1_schema.Problem,
    v2_schema.OpenInferenceError,
    v2_schema.InferRequest,
    v2_schema.InferResponse,
    v2_schema.ServerMetadata,
    v2_schema.ModelMetadata,
    v2_schema.ModelReady,
    v2_schema.ModelConfig,
    v2_schema.StatisticsReport,
    v2_schema.IndexRequest,
    v2_schema.IndexEntry,
    v2_schema.LoadRequest,
    v2_schema.UnloadRequest,
)


def describe_api(app: FastAPI, service: PredictionService) -> dict[str, Any]:
    """OpenAPI for `app`, built anew on each call because the examples follow the loaded models."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, schemas = models_json_schema([(kind, "validation") for kind in _KINDS], ref_template=_REFERENCE)
    document.setdefault("components", {})["schemas"] = schemas["$defs"]
    examples, infer_examples = _examples(service), _infer_examples(service)
    for path, operations in document["paths"].items():
        if path.startswith("/v2"):
            for operation in operations.values():
                # The framework adds it for any parameter; nothing in these paths can be invalid.
                operation["responses"].pop("422", None)
        if path.endswith(("/predict", "/infer")):
            content = operations["post"]["requestBody"]["content"]["application/json"]
            chosen = infer_examples if path.endswith("/infer") else examples
            if "{name}" not in path:
                chosen = dict(list(chosen.items())[:1])
            if chosen:
                content["examples"] = chosen
    return document


def _examples(service: PredictionService) -> dict[str, Any]:
    examples = {}
    for model in service.repository:
        instance = encoding.example(model.predictor.input)
        if instance is not None:
            value = {"id": "r-1", "instances": [instance]}
            examples[model.name] = {"summary": f"One instance for {model.name}", "value": value}
            codec = ImageCodec(model.predictor.input)
            if not codec.unsupported:
                examples[f"{model.name}, image file"] = {
                    "summary": f"The same for {model.name} as a file",
                    "value": {"id": "r-1", "instances": [codec.encode(instance)]},
                }
    return examples


def _infer_examples(service: PredictionService) -> dict[str, Any]:
    examples = {}
    for model in service.repository:
        instance = encoding.example(model.predictor.input)
        # Over this API these models take the numbers that a row or a text becomes, which nobody has at hand.
        if instance is not None and model.predictor.input.reader is None:
            tensor = {
                "name": INPUT,
                "shape": [1, *model.predictor.input.shape],
                "datatype": "FP32",
                "data": np.ravel(instance).tolist(),
            }
            outputs = [{"name": "label"}, {"name": "mc_mean"}, {"name": "mutual_information"}]
            value = {"id": "r-1", "inputs": [tensor], "outputs": outputs}
            examples[model.name] = {"summary": f"One row for {model.name}, and three outputs", "value": value}
    return examples
