"""The Open Inference Protocol's health checks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from serving import wire
from serving.errors import NotReady
from serving.service import PredictionService

_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {
        "description": "Not ready",
        "content": {"application/json": {"schema": wire.reference(wire.OpenInferenceError)}},
    }
}


def build(service: PredictionService) -> APIRouter:
    """The `/v2` routes around `service`."""
    router = APIRouter(prefix="/v2", tags=["v2"])

    @router.get("/health/live", summary="Is the process alive?")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", summary="May requests be sent here?", responses=_NOT_READY)
    async def ready() -> dict[str, bool]:
        if not service.repository.ready:
            raise NotReady(service.repository.unready_reason)
        return {"ready": True}

    return router
