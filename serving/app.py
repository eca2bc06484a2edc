"""Builds the service. Nothing else constructs its objects."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from dubio.serving.batching import Budget, Policy
from dubio.serving.executor import Executor
from dubio.serving.http import auth, problem_details
from dubio.serving.http.api_keys import ApiKeys
from dubio.serving.http.api_keys import Scope as KeyScope
from dubio.serving.http.fast_path import FastPath
from dubio.serving.http.observability import Observer
from dubio.serving.lifecycle import Lifecycle
from dubio.serving.repository.repository import ModelRepository, ModelSource
from dubio.serving.service import PredictionService
from dubio.serving.settings import Settings
from dubio.serving.telemetry.access_log import AccessLog
from dubio.serving.telemetry.gauges import WAITING_BYTES, WAITING_ROWS
from dubio.serving.telemetry.metrics import Metrics
from dubio.serving.telemetry.statistics import Statistics
from dubio.serving.telemetry.tracing import Tracing
from dubio.serving.v1 import routes as v1_routes
from dubio.serving.v2 import infer_routes, repository_routes
from dubio.serving.v2 import routes as v2_routes
from dubio.serving.web import api_docs, index_page
from dubio.serving.web import metrics as metrics_route
from dubio.serving.web.openapi import describe_api

_DESCRIPTION = """
Every answer comes twice from one checkpoint: the deterministic prediction, and the mean and standard
deviation of a committee of dropout samples. Every instance that does not look like the training data is
flagged, at a false-alarm rate that was promised and measured.
"""


class Application(FastAPI):
    """FastAPI behind layers of our own.

    Attributes:
        front: the outermost layer; the innermost hands over to FastAPI what it does not answer itself.
    """

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, from the outermost layer on."""
        await self.front(scope, receive, send)


_STANDARD_OUTPUT = 1
_CORS: dict[str, Any] = {
    "allow_methods": ["GET", "POST"],
    "allow_headers": [
        "Authorization",
        "X-API-Key",
        "X-Request-Id",
        "Content-Type",
        "Content-Encoding",
        "traceparent",
        "tracestate",
        "Inference-Header-Content-Length",
    ],
    "expose_headers": ["X-Request-Id", "Retry-After", "WWW-Authenticate", "Inference-Header-Content-Length"],
}


def create_app(
    settings: Settings,
    lifecycle: Lifecycle | None = None,
    *,
    metrics_folder: Path | None = None,
    worker: int = 0,
    tracing: Tracing | None = None,
) -> Application:
    """The application; its lifespan loads, checks and warms the models, so it is ready once started.

    Args:
        settings: everything an operator can choose.
        lifecycle: of the process, if something stops it step by step.
        metrics_folder: where several workers count together; None for a process that is alone.
        worker: its number among them.
        tracing: instead of what the settings say.

    Raises:
        InvalidModelSource: `settings.models` names a model wrongly or twice. Entering the lifespan raises
            `UnreadableCheckpoint` or `SelfTestFailed` when a model cannot be served.
        InvalidKeys, TracingUnavailable: these settings cannot be used.
    """
    lifecycle = lifecycle or Lifecycle()
    keys = ApiKeys.read(
        path=settings.api_keys_file,
        environment=settings.api_keys.get_secret_value() if settings.api_keys else None,
    )
    tracing = tracing or (Tracing.over_http() if settings.tracing else Tracing())
    access_log = AccessLog(_STANDARD_OUTPUT) if settings.access_log else None
    metrics = Metrics(metrics_folder, worker)
    budget = Budget(max_rows=settings.max_queue_rows, max_bytes=settings.max_queue_bytes)
    metrics.gauges.watch(WAITING_ROWS, lambda: budget.rows)
    metrics.gauges.watch(WAITING_BYTES, lambda: budget.bytes)
    statistics = Statistics()
    executor = Executor(threads=settings.prediction_threads, torch_threads=settings.torch_threads)
    repository = ModelRepository(
        [ModelSource.parse(text) for text in settings.models],
        device=settings.device,
        trusted=settings.trusted,
        strategy=settings.strategy,
        root=settings.model_repository,
        control=settings.model_control,
    )
    service = PredictionService(
        repository,
        executor,
        metrics,
        budget,
        Policy(settings.max_batch_rows, settings.batch_delay_seconds, settings.overload_samples),
        timeout=settings.timeout_seconds,
        statistics=statistics,
        tracing=tracing,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching: asyncio.Task[None] | None = None
        try:
            await service.start()
            # torch alone is half a million objects: a full collection would stop the service for a quarter of a second
            # every few thousand requests, and find nothing among what lives as long as the process.
            gc.collect()
            gc.freeze()
            if settings.model_control == "poll":
                watching = asyncio.create_task(repository.watch(settings.poll_seconds))
            yield
        finally:
            gc.unfreeze()
            if watching is not None:
                watching.cancel()
            repository.close()
            executor.close()
            tracing.close()
            if access_log is not None:
                access_log.close()

    # A redirect for a trailing slash would lose a POST's body, so there is none.
    app = Application(
        title="Dubio",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # the framework's own pages load their scripts from elsewhere
        redoc_url=None,
    )
    natural, inference = (
        v1_routes.build(service, settings, statistics),
        infer_routes.build(service, settings, statistics),
    )
    app.include_router(natural)
    # Not with several workers, of which a request reaches one, and not beside a directory that decides.
    on_request = keys.grants(KeyScope.ADMIN) and settings.workers == 1 and settings.model_control != "poll"
    app.include_router(
        v2_routes.build(service, settings, statistics, lifecycle, version=app.version, loads_on_request=on_request)
    )
    app.include_router(inference)
    app.include_router(repository_routes.build(repository, settings))
    app.include_router(metrics_route.build(metrics))
    app.include_router(index_page.build())
    app.include_router(api_docs.build())
    problem_details.install(app)
    fast_path = FastPath(super(Application, app).__call__, [*natural.routes, *inference.routes])
    # What the gate refuses is observed, and readable for the pages allowed to ask.
    gate = auth.Gate(fast_path, keys)
    app.front = Observer(gate, metrics=metrics, tracing=tracing, access_log=access_log, lifecycle=lifecycle)
    if settings.cors_origins:
        app.front = CORSMiddleware(app.front, allow_origins=settings.cors_origins, **_CORS)
    app.state.service = service
    app.state.metrics = metrics
    describe = partial(describe_api, app, service)
    app.openapi = (lambda: auth.describe(describe())) if keys.any else describe  # type: ignore[method-assign]
    return app


def _version() -> str:
    try:
        return version("dubio")
    except PackageNotFoundError:  # run from a source tree
        return "0+source"
