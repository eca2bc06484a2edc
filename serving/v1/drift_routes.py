"""Whether the rows of a model drift, `/v1/models/{name}/drift`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from dubio.serving.drift.monitor import DriftMonitor
from dubio.serving.drift.watch import Watch
from dubio.serving.errors import NotWatched
from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.repository.registry import ServedModel
from dubio.serving.repository.repository import ModelRepository
from dubio.serving.v1.schema import ModelName
from dubio.serving.wire.schema import Problem, Wire, describe_content, describe_errors
from dubio.uncertainty.detection.interval import clopper_pearson

_CONFIDENCE = 0.95
_PROBLEM = {"content": describe_content(Problem, "application/problem+json")}


class AlarmReport(Wire):
    """When the alarm was raised."""

    time: str = Field(description="UTC.")
    rows: int = Field(description="That had been seen.")


class FlaggedReport(Wire):
    """How many rows were flagged."""

    rows: int
    share: float | None
    interval: list[float] | None = Field(description="Of Clopper and Pearson, for one look at it.")
    confidence: float = Field(description="Of the interval.")
    promised: float = Field(description="The rate at which rows like the calibration rows are flagged, at most.")


class DriftReport(Wire):
    """The evidence that the rows of a version are not like its calibration rows any more."""

    model: ModelName
    reason: str | None = Field(description="Why nothing is watched, and the rest is null; null where it is.")
    since: str | None = Field(default=None, description="When the first of these rows came, UTC.")
    rows: int | None = Field(default=None, description="Answered with a promise, by all workers.")
    e_value: float | None = Field(default=None, description="The mean of both; 1 says nothing.")
    e_values: dict[str, float] | None = Field(
        default=None, description="Of `flags` and, with one checkpoint, `p_values`."
    )
    alarm_level: float | None = Field(default=None, description="The e-value at which the alarm is raised.")
    false_alarm: float | None = Field(default=None, description="Probability of ever raising a false one, at most.")
    alarm: AlarmReport | None = Field(default=None, description="Stays until an administrator resets it.")
    flagged: FlaggedReport | None = None


def build(repository: ModelRepository, monitor: DriftMonitor) -> tuple[ScopedRouter, ScopedRouter]:
    """The routes that show drift, and those with which an administrator begins anew."""
    shown = ScopedRouter(Scope.INFER, prefix="/v1", tags=["v1"])
    administered = ScopedRouter(Scope.ADMIN, prefix="/v1", tags=["v1"])

    def find(request: Request, name: str, version: str | None) -> ServedModel:
        model = repository.get(name, version)
        request.state.model, request.state.version = model.name, model.version
        return model

    async def show(request: Request, name: str, version: str | None) -> Response:
        model = find(request, name, version)

        def read() -> dict[str, Any]:
            monitor.flush()
            subject = monitor.subject(model)
            return _describe(model, None if subject is None else monitor.read(subject))

        return _json(await asyncio.to_thread(read))

    async def reset(request: Request, name: str, version: str | None) -> Response:
        model = find(request, name, version)
        subject = monitor.subject(model)
        if subject is None:
            raise NotWatched(
                f"Expected a model that is watched for drift, but {model.name!r} makes no promise: "
                f"{model.facts.no_promise}; calibrate it with `dubio-train calibrate`."
            )
        return _json(_describe(model, await asyncio.to_thread(monitor.reset, subject)))

    @shown.get("/models/{name}/drift", summary="Do the rows drift?", **_docs(404, 503))
    async def show_drift(request: Request, name: str) -> Response:
        return await show(request, name, None)

    @shown.get("/models/{name}/versions/{version}/drift", summary="The same of a version", **_docs(404, 503))
    async def show_drift_of_version(request: Request, name: str, version: str) -> Response:
        return await show(request, name, version)

    @administered.delete("/models/{name}/drift", summary="Watch for drift anew", **_docs(404, 409, 503))
    async def reset_drift(request: Request, name: str) -> Response:
        return await reset(request, name, None)

    @administered.delete(
        "/models/{name}/versions/{version}/drift", summary="The same for a version", **_docs(404, 409, 503)
    )
    async def reset_drift_of_version(request: Request, name: str, version: str) -> Response:
        return await reset(request, name, version)

    return shown, administered


def _docs(*statuses: int) -> dict[str, Any]:
    described: dict[int | str, Any] = {200: {"description": "Described", "model": DriftReport}}
    return {"response_class": Response, "responses": {**described, **describe_errors(_PROBLEM, *statuses)}}


def _describe(model: ServedModel, watch: Watch | None) -> dict[str, Any]:
    name = {"name": model.name, "version": model.version}
    if watch is None:
        return DriftReport(model=ModelName(**name), reason=model.facts.no_promise).model_dump()
    rows, subject = watch.rows, watch.subject
    return DriftReport(
        model=ModelName(**name),
        reason=None,
        since=None if watch.since is None else _utc(watch.since),
        rows=rows,
        e_value=watch.e_value,
        e_values={"flags": watch.flags.e_value} | ({"p_values": watch.p_values.e_value} if watch.p_values else {}),
        alarm_level=watch.level,
        false_alarm=subject.false_alarm(watch.flags.epsilon),
        alarm=watch.alarm and AlarmReport(time=_utc(watch.alarm.time), rows=watch.alarm.rows),
        flagged=FlaggedReport(
            rows=watch.flagged,
            share=watch.flagged / rows if rows else None,
            interval=list(clopper_pearson(watch.flagged, rows, _CONFIDENCE)) if rows else None,
            confidence=_CONFIDENCE,
            promised=subject.alpha,
        ),
    ).model_dump()


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
