"""Builds the service. Nothing else constructs its objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from serving import problems
from serving.metrics import Metrics
from serving.observing import Observer
from serving.openapi import describe_api
from serving.repository import ModelRepository, ModelSource
from serving.routes import metrics as metrics_routes
from serving.routes import page, v1, v2
from serving.runner import Runner
from serving.service import PredictionService
from serving.settings import Settings

_DESCRIPTION = """
Every answer comes twice from one checkpoint: the deterministic prediction, and the mean and standard
deviation of a committee of dropout samples. Every instance that does not look like the training data is
flagged, at a false-alarm rate that was promised and measured.
"""


def create_app(settings: Settings) -> FastAPI:
    """The application; its lifespan loads, checks and warms the models, so it is ready once started.

    Raises:
        InvalidModelSource: `settings.models` names a model wrongly or twice. Entering the lifespan raises
            `UnreadableCheckpoint` or `SelfTestFailed` when a model cannot be served.
    """
    metrics = Metrics()
    runner = Runner(threads=settings.prediction_threads, torch_threads=settings.torch_threads)
    repository = ModelRepository(
        [ModelSource.parse(text) for text in settings.models],
        device=settings.device,
        trusted=settings.trusted,
    )
    service = PredictionService(repository, runner, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await service.start()
            yield
        finally:
            runner.close()

    # A redirect for a trailing slash would lose a POST's body, so there is none.
    app = FastAPI(
        title="Dubio", version=_version(), description=_DESCRIPTION, lifespan=lifespan, redirect_slashes=False
    )
    app.include_router(v1.build(service, settings))
    app.include_router(v2.build(service))
    app.include_router(metrics_routes.build(metrics))
    app.include_router(page.build())
    problems.install(app)
    app.add_middleware(Observer, metrics=metrics)
    app.openapi = partial(describe_api, app, service)  # type: ignore[method-assign]
    return app


def _version() -> str:
    try:
        return version("dubio")
    except PackageNotFoundError:  # run from a source tree
        return "0+source"
