"""The numbers of the service for Prometheus, `/metrics`."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.telemetry.metrics import Metrics


def build(metrics: Metrics) -> ScopedRouter:
    """The `/metrics` route around `metrics`."""
    router = ScopedRouter(Scope.METRICS, tags=["operations"])

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def scrape() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router
