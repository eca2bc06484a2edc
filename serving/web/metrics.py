"""The numbers of the service for Prometheus, `/metrics`."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.telemetry.metrics import Metrics

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "In Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


def build(metrics: Metrics) -> ScopedRouter:
    """The `/metrics` route around `metrics`."""
    router = ScopedRouter(Scope.METRICS, tags=["operations"])

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response, responses=_RESPONSES)
    async def scrape() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router
