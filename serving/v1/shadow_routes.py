"""How a shadow compares with the model that answers, and its promotion."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from dubio.serving.errors import ControlRefused, UnknownShadow
from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.http.request import read_body
from dubio.serving.repository.repository import ModelRepository
from dubio.serving.settings import Settings
from dubio.serving.shadow.comparison import Mean
from dubio.serving.shadow.evidence import Evidence
from dubio.serving.shadow.shadow import Shadow, Standing
from dubio.serving.shadow.shadows import Shadows
from dubio.serving.v1.schema import ModelName
from dubio.serving.wire.envelope import read
from dubio.serving.wire.schema import Incoming, Problem, Wire, describe_content, describe_errors
from dubio.uncertainty.detection.interval import clopper_pearson

_CONFIDENCE = 0.95
_PROBLEM = {"content": describe_content(Problem, "application/problem+json")}


class Share(Wire):
    """A share of the rows that were compared."""

    rows: int
    share: float | None
    interval: list[float] | None = Field(description="Of Clopper and Pearson, 95%, for one look at it.")


class Seconds(Wire):
    """What a request took."""

    mean: float | None
    interval: list[float] | None = Field(description="95%, by the normal law.")


class Side(Wire):
    """One of both."""

    version: str
    flagged: Share | None = None
    seconds: Seconds | None = Field(
        default=None,
        description="Of a request: of the version that answers until the answer was there, of the shadow what it "
        "computed, with one thread of the lowest priority.",
    )


class Correct(Wire):
    """How many rows one of both was right about."""

    correct: int
    share: float
    interval: list[float] = Field(description="Of Clopper and Pearson, 95%, for one look at it.")


class AccuracyReport(Wire):
    """Both on the same rows: those that were drawn or asked for, and got a true label."""

    rows: int
    live: Correct
    shadow: Correct
    e_value: float = Field(description="That the shadow is not right less often by the margin or more.")


class ComparisonReport(Wire):
    """What is known about both."""

    model: str
    standing: Standing
    reason: str | None = Field(description="Why the shadow ended.")
    live: Side
    shadow: Side
    rows: int | None = Field(default=None, description="That were compared.")
    disagreement: Share | None = Field(default=None, description="Rows of which the labels differ.")
    newly_flagged: Share | None = Field(default=None, description="Rows that the shadow alone flags.")
    accuracy: AccuracyReport | None = Field(default=None, description="By true labels, of `/v1/feedback`.")
    accuracy_reason: str | None = Field(default=None, description="Why `accuracy` is null.")
    margin: float | None = Field(default=None, description="By how much the shadow is not to be worse.")
    e_value: float | None = Field(
        default=None,
        description="That it is not: the smaller of `not_newly_flagged` and, without a store, `unchanged`, or with one "
        "half of the larger of `unchanged` and `accuracy`.",
    )
    e_values: dict[str, float] | None = None
    promotion_level: float | None = Field(default=None, description="What both of these have to reach.")
    promotable: bool = False


class PromoteRequest(Incoming):
    """A shadow to promote, which the path names."""

    force: bool = Field(default=False, description="Whether to do so although the evidence is missing.")


def build(
    repository: ModelRepository, shadows: Shadows | None, settings: Settings
) -> tuple[ScopedRouter, ScopedRouter]:
    """The route that compares, and the one with which an administrator promotes."""
    shown = ScopedRouter(Scope.INFER, prefix="/v1", tags=["v1"])
    administered = ScopedRouter(Scope.ADMIN, prefix="/v1", tags=["v1"])

    def found() -> Shadows:
        if shadows is None:
            raise UnknownShadow("Expected a model with a shadow, but there are none without a `model_repository`.")
        return shadows

    @shown.get(
        "/models/{name}/comparison",
        summary="How a shadow compares with the model that answers",
        **_docs(ComparisonReport, 404, 503),
    )
    async def compare(request: Request, name: str) -> Response:
        model = repository.get(name)
        request.state.model, request.state.version = model.name, model.version
        shadow = found().get(name)
        return _json(_describe(shadow, await found().evidence(shadow)))

    @administered.post(
        "/models/{name}/promote",
        summary="Let a shadow take over",
        openapi_extra={"requestBody": {"content": describe_content(PromoteRequest)}},
        **_docs(ModelName, 400, 404, 408, 409, 413, 415, 422, 503),
    )
    async def promote(request: Request, name: str) -> Response:
        body = await read_body(request, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
        asked = read(body.strip() or b"{}", PromoteRequest)
        model = repository.get(name)
        request.state.model, request.state.version = model.name, model.version
        if settings.workers > 1 and settings.model_control != "poll":
            raise ControlRefused(
                f"Expected one worker for loading by request, but there are {settings.workers}, and a request reaches "
                "one of them only; start the service with `model_control` poll."
            )
        return _json({"name": name, "version": await found().promote(name, force=asked.force)})

    return shown, administered


def _docs(kind: type[Wire], *statuses: int) -> dict[str, Any]:
    described: dict[int | str, Any] = {200: {"description": "Done", "model": kind}}
    return {"response_class": Response, "responses": {**described, **describe_errors(_PROBLEM, *statuses)}}


def _describe(shadow: Shadow, evidence: Evidence | None) -> dict[str, Any]:
    live, other = Side(version=shadow.live.version), Side(version=shadow.source.version)
    report = ComparisonReport(
        model=shadow.source.name, standing=shadow.standing, reason=shadow.reason or None, live=live, shadow=other
    )
    if evidence is None:
        return report.model_dump()
    known = evidence.comparison
    live.flagged, live.seconds = _share(known.live_flagged, known.judged), _seconds(known.live_seconds)
    other.flagged, other.seconds = _share(known.shadow_flagged, known.judged), _seconds(known.shadow_seconds)
    return report.model_copy(
        update={
            "rows": known.rows,
            "disagreement": _share(known.disagreements, known.rows),
            "newly_flagged": _share(known.newly_flagged, known.judged),
            "accuracy": _accuracy(evidence),
            "accuracy_reason": evidence.reason,
            "margin": known.pair.margin,
            "e_value": evidence.e_value,
            "e_values": {
                "unchanged": known.unchanged.e_value,
                "not_newly_flagged": known.unflagged.e_value,
                **({} if evidence.accuracy is None else {"accuracy": evidence.accuracy.e_value}),
            },
            "promotion_level": evidence.level,
            "promotable": evidence.reached and shadow.standing is Standing.RUNNING,
        }
    ).model_dump()


def _accuracy(evidence: Evidence) -> AccuracyReport | None:
    known = evidence.accuracy
    if known is None or evidence.reason is not None:
        return None
    live, shadow = (
        Correct(correct=count, share=count / known.rows, interval=list(clopper_pearson(count, known.rows, _CONFIDENCE)))
        for count in (known.live, known.shadow)
    )
    return AccuracyReport(rows=known.rows, live=live, shadow=shadow, e_value=known.e_value)


def _share(count: int, rows: int) -> Share:
    if rows == 0:
        return Share(rows=count, share=None, interval=None)
    return Share(rows=count, share=count / rows, interval=list(clopper_pearson(count, rows, _CONFIDENCE)))


def _seconds(mean: Mean) -> Seconds:
    if (known := mean.interval) is None:
        return Seconds(mean=None, interval=None)
    return Seconds(mean=known[0], interval=list(known[1:]))


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
