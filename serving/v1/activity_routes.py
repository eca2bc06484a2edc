"""What a model did since the service was started, `/v1/models/{name}/activity`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.repository.repository import ModelRepository
from dubio.serving.telemetry.activity import Activity
from dubio.serving.telemetry.metrics import Metrics
from dubio.serving.v1.schema import ModelName
from dubio.serving.wire.schema import Problem, Wire, describe_content, describe_errors

_PROBLEM = {"content": describe_content(Problem, "application/problem+json")}


class SecondsReport(Wire):
    """How long answers took."""

    bounds: list[float] = Field(description="Upper bounds, in seconds.")
    counts: list[int] = Field(description="Requests up to each bound and above the one before; the last: above all.")


class ActivityReport(Wire):
    """Numbers that only ever grow, of one version and all workers: two looks make a rate."""

    model: ModelName
    time: str = Field(description="When it was read, UTC.")
    requests: dict[str, int] = Field(description="Answered predict requests, by status.")
    seconds: SecondsReport
    rows: int = Field(description="Instances predicted.")
    judged: int = Field(description="Of these, with a p-value, so that they could be flagged.")
    flagged: dict[str, int] = Field(description="Of these, flagged, by reason.")


def build(repository: ModelRepository, metrics: Metrics, predict_routes: Collection[str]) -> ScopedRouter:
    """The route that tells what a model did.

    Args:
        repository: The models.
        metrics: What was counted.
        predict_routes: The patterns of the routes that predict.
    """
    router = ScopedRouter(Scope.INFER, prefix="/v1", tags=["v1"])

    @router.get(
        "/models/{name}/activity",
        summary="What a model did since the start",
        response_class=Response,
        responses={200: {"description": "Counted", "model": ActivityReport}, **describe_errors(_PROBLEM, 404, 503)},
    )
    async def show(request: Request, name: str) -> Response:
        model = repository.get(name)
        request.state.model, request.state.version = model.name, model.version
        totals = await asyncio.to_thread(metrics.totals)
        return _json(
            _describe(model.name, model.version, Activity.of(model.name, model.version, totals, predict_routes))
        )

    return router


def _describe(name: str, version: str, did: Activity) -> dict[str, Any]:
    return ActivityReport(
        model=ModelName(name=name, version=version),
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        requests=did.requests,
        seconds=SecondsReport(bounds=list(did.bounds), counts=did.seconds),
        rows=did.rows,
        judged=did.judged,
        flagged=did.flagged,
    ).model_dump()


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
