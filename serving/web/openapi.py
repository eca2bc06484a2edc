"""The API's description, with an example request for every loaded model that can be sent as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from dubio.serving.repository.registry import ServedModel
from dubio.serving.v1 import feedback_schema, review_schema, shadow_routes, tf_serving
from dubio.serving.v1 import schema as v1_schema
from dubio.serving.v2 import schema as v2_schema
from dubio.serving.v2.input_tensor import list_inputs
from dubio.serving.v2.outputs import EXPLANATION, OUTPUTS
from dubio.serving.wire.images import ImageCodec
from dubio.serving.wire.schema import Problem, Wire

_REFERENCE = "#/components/schemas/{model}"

# What FastAPI does not see: it knows the answers by their routes, but request bodies are read by us.
_KINDS: tuple[type[Wire], ...] = (
    v1_schema.PredictRequest,
    shadow_routes.PromoteRequest,
    Problem,
    tf_serving.TFServingRequest,
    review_schema.ReviewChange,
    feedback_schema.Feedback,
    v2_schema.InferRequest,
    v2_schema.InferResponse,
    v2_schema.IndexRequest,
    v2_schema.LoadRequest,
    v2_schema.UnloadRequest,
)


def describe_api(app: FastAPI, models: Sequence[ServedModel]) -> dict[str, Any]:
    """OpenAPI for `app`, with examples for `models`."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, servers=app.servers
    )
    _, schemas = models_json_schema([(kind, "validation") for kind in _KINDS], ref_template=_REFERENCE)
    components = document["components"]["schemas"]
    components |= schemas["$defs"]
    for unused in ("HTTPValidationError", "ValidationError"):  # the framework's, which nothing answers with
        components.pop(unused, None)
    components["RequestOutput"]["properties"]["name"]["enum"] = [*OUTPUTS, EXPLANATION.name]
    examples, infer_examples = _examples(models)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            # The framework adds its own for any parameter; nothing in these paths can be invalid.
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
        if path.endswith(("predict", "/infer")):
            content = operations["post"]["requestBody"]["content"]["application/json"]
            chosen = infer_examples if path.endswith("/infer") else examples
            if "{name}" not in path:
                chosen = dict(list(chosen.items())[:1])
            if chosen:
                content["examples"] = chosen
    return document


def _examples(models: Sequence[ServedModel]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Requests to `/predict` and to `/infer`, by name."""
    predict, infer = {}, {}
    for model in models:
        spec = model.facts.input
        instance, _ = model.facts.example
        if instance is None:
            continue
        predict[model.name] = _example(f"One instance for {model.name}", instances=[instance])
        codec = ImageCodec(spec)
        if not codec.unsupported:
            files = [codec.encode(instance)]
            predict[f"{model.name}, image file"] = _example(f"The same for {model.name} as a file", instances=files)
        tensors = [
            tensor | {"shape": [1, *tensor["shape"][1:]], "data": _data(instance, tensor["name"])}
            for tensor in list_inputs(spec)
        ]
        outputs = [{"name": "label"}, {"name": "mc_mean"}, {"name": "mutual_information"}]
        infer[model.name] = _example(f"One row for {model.name}, and three outputs", inputs=tensors, outputs=outputs)
    return predict, infer


def _data(instance: Any, name: str) -> list[Any]:
    """The data of one input tensor of an instance: of a table's row one column."""
    if isinstance(instance, dict):
        return [instance[name]]
    return [instance] if isinstance(instance, str) else list(np.ravel(instance).tolist())


def _example(summary: str, **request: Any) -> dict[str, Any]:
    return {"summary": summary, "value": {"id": "r-1", **request}}
