"""The API's description, with an example request for every loaded model that can be sent as it is."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from serving import wire
from serving.service import PredictionService

REF_TEMPLATE = "#/components/schemas/{model}"


def describe_api(app: FastAPI, service: PredictionService) -> dict[str, Any]:
    """OpenAPI for `app`, built anew on each call because the examples follow the loaded models."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    kinds = (wire.PredictRequest, wire.PredictResponse, wire.Problem, wire.OpenInferenceError)
    _, schemas = models_json_schema([(kind, "validation") for kind in kinds], ref_template=REF_TEMPLATE)
    document.setdefault("components", {})["schemas"] = schemas["$defs"]
    examples = _examples(service)
    for path, operations in document["paths"].items():
        if path.endswith("/predict"):
            content = operations["post"]["requestBody"]["content"]["application/json"]
            chosen = examples if "{name}" in path else dict(list(examples.items())[:1])
            if chosen:
                content["examples"] = chosen
    return document


def _examples(service: PredictionService) -> dict[str, Any]:
    found = {}
    for model in service.repository:
        instance = service.example(model)
        if instance is not None:
            value = {"id": "r-1", "instances": [instance]}
            found[model.name] = {"summary": f"One instance for {model.name}", "value": value}
    return found
