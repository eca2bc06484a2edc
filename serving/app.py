"""Builds the service. Nothing else constructs its objects."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from dubio.serving.batching import Budget, Policy
from dubio.serving.compute.process import ComputeProcess
from dubio.serving.drift.metrics import DriftCollector
from dubio.serving.drift.monitor import DriftMonitor
from dubio.serving.errors import RpcUnavailable, ServingError
from dubio.serving.executor import Executor
from dubio.serving.http import auth, problem_details
from dubio.serving.http.allowed_hosts import AllowedHosts
from dubio.serving.http.api_keys import ApiKeys, Scope
from dubio.serving.http.middleware import AuthMiddleware, FastPath, Observer, RequestLine, SameOriginMiddleware
from dubio.serving.http.recording import ASK, TOLD, Recorder
from dubio.serving.lifecycle import Lifecycle
from dubio.serving.repository import heap
from dubio.serving.repository.registry import ServedModel
from dubio.serving.repository.remote_loader import build_loader
from dubio.serving.repository.repository import ModelRepository, ModelSource
from dubio.serving.service import Explainer, PredictionService
from dubio.serving.settings import Settings, available_processors
from dubio.serving.shadow.shadow import Shadow, Terms
from dubio.serving.shadow.shadows import Shadows
from dubio.serving.states import FolderStates, MemoryStates
from dubio.serving.telemetry.access_log import AccessLog
from dubio.serving.telemetry.expected_series import ExpectedSeries, RouteAnswers
from dubio.serving.telemetry.gauges import STORE_FAILING, STORE_WAITING_ROWS, WAITING_BYTES, WAITING_ROWS
from dubio.serving.telemetry.log import configure_log
from dubio.serving.telemetry.metrics import Metrics
from dubio.serving.telemetry.model_gauges import ModelGauges
from dubio.serving.telemetry.telemetry import Telemetry
from dubio.serving.telemetry.tracing import Tracing
from dubio.serving.v1 import (
    activity_routes,
    drift_routes,
    feedback_routes,
    review_routes,
    shadow_routes,
    tf_serving_routes,
)
from dubio.serving.v1 import routes as v1_routes
from dubio.serving.v2 import infer_routes, repository_routes
from dubio.serving.v2 import routes as v2_routes
from dubio.serving.web import api_docs, index_page
from dubio.serving.web import metrics as metrics_route
from dubio.serving.web.description import Description
from dubio.serving.web.openapi import describe_api
from dubio.serving.wire.effort import Readers

if TYPE_CHECKING:
    from dubio.serving.rpc.server import RpcServer
    from dubio.serving.store.store import Store

_log = logging.getLogger("dubio")
_DESCRIPTION = """
Every answer comes twice from one checkpoint: the deterministic prediction, and the mean and standard
deviation of a committee of dropout samples. Every instance that does not look like the training data is
flagged, at a false-alarm rate that was promised and measured.
"""


@dataclass(frozen=True)
class Application:
    """Everything that makes a service.

    Attributes:
        asgi: What a server runs; its lifespan loads, checks and warms the models, so it is ready once started.
        api: The framework's part of it, behind the layers.
        repository: The models.
        service: Their answers.
        metrics: What `/metrics` shows.
        reload: Reads the keys' file and the models again; what cannot be used stays as it was, and the log says why.
        rpc: What answers over gRPC, if the settings name a port for it; nothing is listened on before it is started.
    """

    asgi: ASGIApp
    api: FastAPI
    repository: ModelRepository
    service: PredictionService
    metrics: Metrics
    reload: Callable[[], Coroutine[Any, Any, None]]
    rpc: RpcServer | None = None

    def lifespan(self) -> AbstractAsyncContextManager[Any]:
        """Loads the models when entered, and puts everything away when left.

        Raises:
            UnreadableCheckpoint: A model's file cannot be read.
            SelfTestFailed: A model's answers cannot be trusted.
        """
        return self.api.router.lifespan_context(self.api)


_STANDARD_OUTPUT = 1
_CORS: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD", "POST", "PATCH"],
    "allow_headers": [
        *("Authorization", "X-API-Key", "X-Request-Id", "Content-Type", "Content-Encoding"),
        *("traceparent", "tracestate", "Inference-Header-Content-Length", ASK),
    ],
    "expose_headers": ["X-Request-Id", "Retry-After", "WWW-Authenticate", "Inference-Header-Content-Length", TOLD],
}


def create_app(
    settings: Settings,
    lifecycle: Lifecycle | None = None,
    *,
    metrics_folder: Path | None = None,
    worker: int = 0,
    tracing: Tracing | None = None,
    process: ComputeProcess | None = None,
) -> Application:
    """Build a service; nothing is loaded before its lifespan begins.

    Args:
        settings: Everything an operator can choose.
        lifecycle: Of the process, if something stops it step by step.
        metrics_folder: Where several workers count together; None for a process that is alone.
        worker: Its number among them.
        tracing: Instead of what the settings say.
        process: That computes, if it was started already; see `Settings.predict_in`.

    Raises:
        InvalidModelSource: `settings.models` names a model wrongly or twice.
        InvalidKeys: The API keys cannot be used.
        TracingUnavailable: Traces are wanted but their libraries are not installed.
        StoreUnusable: The database of the store is none, or its libraries are not installed.
        RpcUnavailable: A port for gRPC is named but its libraries are not installed.
        ProcessUnavailable: Predictions are to be computed in a process of their own, which cannot be started.
    """
    lifecycle = lifecycle or Lifecycle()

    def read_keys() -> ApiKeys:
        return ApiKeys.read(
            path=settings.api_keys_file,
            environment=None if settings.api_keys is None else settings.api_keys.get_secret_value(),
        )

    keys = read_keys()
    metrics = Metrics(metrics_folder, worker)
    folder = settings.state_folder or metrics_folder
    drift = DriftMonitor(MemoryStates() if folder is None else FolderStates(folder / "drift"), settings.drift_alpha)
    telemetry = Telemetry(
        metrics,
        tracing or (Tracing.over_http() if settings.tracing else None),
        AccessLog(_STANDARD_OUTPUT) if settings.access_log else None,
        drift,
    )
    budget = Budget(max_rows=settings.max_queue_rows, max_bytes=settings.max_queue_bytes)
    metrics.gauges.register(WAITING_ROWS, lambda: budget.rows)
    metrics.gauges.register(WAITING_BYTES, lambda: budget.bytes)
    threads = settings.torch_threads or available_processors()
    if process is None and settings.predict_in == "process":
        process = ComputeProcess(trials=settings.load_trial == "process")
    if process is not None:
        metrics.show_process(process.pid)
    log = partial(configure_log, settings.log_level, worker=None if metrics_folder is None else worker)
    loader = build_loader(settings, threads, process, prepare=log)
    executor = Executor(threads=settings.prediction_threads, torch_threads=threads, process=process)
    repository = ModelRepository(
        [ModelSource.parse(text) for text in settings.models],
        loader,
        root=settings.model_repository,
        control=settings.model_control,
    )
    metrics.registry.register(DriftCollector(drift, repository.all_versions))
    store = None if settings.store is None and settings.database_url is None else _store(settings, metrics)
    if store is not None and not keys.any:
        _log.warning("Without API keys everybody who reaches this service may read and label what the store keeps.")
    shadows = None
    if settings.model_repository is not None:
        terms = Terms(
            settings.shadow_share * threads,
            settings.shadow_margin,
            settings.shadow_alpha,
            load_seconds=5 * settings.load_seconds,
            seconds=settings.timeout_seconds,
        )
        how = {
            "trusted": settings.trusted,
            "strategy": settings.strategy,
            "max_bytes": settings.max_model_bytes,
            "batch_invariant": settings.batch_invariant,
        }
        kept = MemoryStates() if folder is None else FolderStates(folder / "comparisons")
        keep_labels, accuracy = (None, None) if store is None else (store.keep_labels, store.accuracy)
        shadows = Shadows(
            repository,
            settings.model_repository,
            lambda live, source: Shadow(live, source, how, terms, kept, metrics, keep_labels),
            accuracy,
        )
    policy = Policy(settings.max_batch_rows, settings.batch_delay_seconds, settings.overload_samples)
    stalled_seconds = settings.stalled_seconds or settings.timeout_seconds
    service = PredictionService(
        repository,
        executor,
        telemetry,
        budget,
        policy,
        timeout=settings.timeout_seconds,
        stalled_seconds=stalled_seconds,
        hung_seconds=settings.hung_seconds or 5 * stalled_seconds,
        explainer=Explainer(),
        shadows=shadows,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching: asyncio.Task[None] | None = None
        try:
            await executor.submit(repository.load)
            heap.freeze()
            drift.start()
            if store is not None:
                store.start()
            if settings.model_control == "poll":
                watching = asyncio.create_task(repository.watch(settings.poll_seconds))
            yield
        finally:
            gc.unfreeze()
            if watching is not None:
                watching.cancel()
            repository.close()
            if shadows is not None:
                await asyncio.to_thread(shadows.close)
            executor.close()
            service.explainer.close()
            if process is not None:
                await asyncio.to_thread(process.close)
            if store is not None:
                await asyncio.to_thread(store.close)
            telemetry.close()

    # A redirect for a trailing slash would lose a POST's body, so there is none.
    api = FastAPI(
        title="Dubio",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        # A relative address is relative to the description's: requests go where it came from.
        servers=[{"url": settings.root_path or ".", "description": "this service"}],
        redirect_slashes=False,
        openapi_url=None,  # described below, anew for whatever is loaded
        docs_url=None,  # the framework's own pages load their scripts from elsewhere
        redoc_url=None,
    )

    def describe(models: Sequence[ServedModel]) -> dict[str, Any]:
        document = describe_api(api, models)
        return auth.describe(document, routers) if keys.any else document

    async def reload() -> None:
        _log.info("Reading keys and models again.")
        try:
            keys.replace(read_keys())
        except ServingError as error:
            _log.error("The keys stay as they were: %s", error)
        await repository.reload()
        _log.info("Reloaded; serving %s.", ", ".join(model.name for model in repository) or "no model")

    def loads_on_request() -> bool:
        # Not with several workers, of which a request reaches one, and not beside a directory that decides.
        return keys.grants(Scope.ADMIN) and settings.workers == 1 and settings.model_control != "poll"

    readers = Readers(settings.prediction_threads)  # for both forms of the same request
    recorder = Recorder(store, settings.store_wait_seconds)
    predict = v1_routes.build(service, settings, readers, recorder)
    infer = infer_routes.build(service, settings, readers, recorder)
    tf_serving = tf_serving_routes.build(service, settings, readers, recorder)
    predicting = [*predict.routes, *infer.routes, *tf_serving.routes]
    rpc = None
    if settings.grpc_port is not None:
        rpc = _rpc(service, settings, lifecycle, keys, readers, recorder, api.version, loads_on_request)
    rpc_answers = [] if rpc is None else rpc.calls.answers
    predict_routes = frozenset(
        [
            *(route.path for route in predicting if isinstance(route, APIRoute) and route.methods == {"POST"}),
            *(each.route for each in rpc_answers if each.predicts),
        ]
    )
    routers = [  # the calls that carry the traffic are found first
        predict,
        infer,
        tf_serving,
        v1_routes.build_cards(service),
        activity_routes.build(repository, metrics, predict_routes),
        *drift_routes.build(repository, drift),
        *shadow_routes.build(repository, shadows, settings),
        review_routes.build(store, settings),
        feedback_routes.build(store, service, settings),
        v2_routes.build_health(service, lifecycle),
        v2_routes.build(service, settings, version=api.version, loads_on_request=loads_on_request),
        repository_routes.build(repository, settings),
        metrics_route.build(metrics),
        index_page.build(),
        api_docs.build(Description(describe, repository)),
    ]
    for router in routers:
        api.include_router(router)
    problem_details.install(api, [route for router in routers for route in router.routes])
    answers = [
        RouteAnswers(
            route.path,
            sorted({"200", "500", *map(str, route.responses), *(("401", "403") if keys.any else ())}),
            predicts=route in predicting and route.methods == {"POST"},
        )
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
    ]
    metrics.expect(
        ExpectedSeries(
            repository.all_versions,
            [*answers, *rpc_answers],
            problem_details.REASONS,
            shadows.keys if shadows is not None else tuple,
        )
    )
    metrics.registry.register(ModelGauges(repository.all_versions, repository.wanted, service.require_progress))
    # What is refused by the layers here is observed, and readable for the pages allowed to ask.
    asgi: ASGIApp = AuthMiddleware(FastPath(api, predicting), keys, routers)
    asgi = SameOriginMiddleware(asgi, AllowedHosts(settings.allowed_hosts, settings.host), settings.cors_origins)
    asgi = Observer(RequestLine(asgi, settings.root_path), telemetry, lifecycle)
    if settings.cors_origins:
        asgi = CORSMiddleware(asgi, allow_origins=settings.cors_origins, **_CORS)
    return Application(asgi, api, repository, service, metrics, reload, rpc)


def _store(settings: Settings, metrics: Metrics) -> Store:
    from dubio.serving.store.database import Database, locate, of_file
    from dubio.serving.store.retention import Retention
    from dubio.serving.store.store import Keeping, Store

    keeping = Keeping(
        settings.store_input,
        settings.store_share,
        Retention(settings.store_days, settings.store_bytes),
        settings.store_queue_rows,
        settings.store_queue_bytes,
    )
    url = None if settings.database_url is None else settings.database_url.get_secret_value()
    database = Database(of_file(settings.store) if settings.store is not None else locate(url or ""))
    store = Store(database, keeping, metrics.count_stored, metrics.count_dropped)
    metrics.gauges.register(STORE_WAITING_ROWS, lambda: store.waiting_rows)
    metrics.gauges.register(STORE_FAILING, lambda: store.failing)
    return store


def _rpc(
    service: PredictionService,
    settings: Settings,
    lifecycle: Lifecycle,
    keys: ApiKeys,
    readers: Readers,
    recorder: Recorder,
    version: str,
    loads_on_request: Callable[[], bool],
) -> RpcServer:
    try:
        from dubio.serving.rpc.calls import Calls
        from dubio.serving.rpc.health import build_health
        from dubio.serving.rpc.inference import InferenceCalls
        from dubio.serving.rpc.server import RpcServer
    except ImportError as error:
        raise RpcUnavailable(
            f"Expected `grpc_port` to have its libraries, but {error.name} is missing; pip install 'dubio[grpc]'."
        ) from error
    calls = Calls(service.telemetry, keys, settings)
    inference = InferenceCalls(service, settings, lifecycle, readers, recorder, version, loads_on_request)
    return RpcServer([inference.build(calls), build_health(service, lifecycle, calls)], calls, settings)


def _version() -> str:
    try:
        return version("dubio")
    except PackageNotFoundError:  # run from a source tree
        return "0+source"
