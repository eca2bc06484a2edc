"""Ray Serve: the service as replicas on a cluster, as many as the rows that wait want.

`serve run dubio.scale.ray_serve:app models=digits=/models/digits/model.ckpt max_replicas=8`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingContext
from starlette.types import ASGIApp

from dubio.models.errors import InvalidInput, did_you_mean
from dubio.serving.app import create_app
from dubio.serving.errors import InvalidModelSource
from dubio.serving.repository.source import ModelSource
from dubio.serving.settings import Settings
from dubio.serving.telemetry.gauges import WAITING_ROWS
from dubio.serving.telemetry.log import configure_log

METRIC = WAITING_ROWS.name
# Connections are the business of Ray's proxies, which know none of these.
_OF_CONNECTIONS = frozenset(
    {
        *("host", "port", "grpc_port", "grpc_max_calls", "keep_alive_seconds", "max_head_bytes", "head_seconds"),
        *("trusted_proxies", "drain_seconds"),
    }
)


class Scaling(BaseModel):
    """What Ray is to know of a deployment; the names are Ray's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(default=1, ge=1)  # none could say that rows wait
    max_replicas: int = Field(default=1, ge=1, le=256)
    waiting_rows: float = Field(default=64.0, gt=0)  # a replica, on average
    upscale_delay_s: float = Field(default=30.0, ge=0)
    downscale_delay_s: float = Field(default=600.0, ge=0)
    look_back_period_s: float = Field(default=30.0, gt=0)
    num_cpus: float = Field(default=1.0, gt=0)
    num_gpus: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _ascending(self) -> Scaling:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"Expected `min_replicas` to be at most `max_replicas`, but got {self.min_replicas} and "
                f"{self.max_replicas}"
            )
        return self

    def options(self, settings: Settings) -> dict[str, Any]:
        """The options of the deployment."""
        return {
            "name": "dubio",
            "ray_actor_options": {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus},
            # The service itself refuses what is too much, and says when to try again; each request has a row at least.
            "max_ongoing_requests": settings.max_queue_rows,
            "graceful_shutdown_timeout_s": settings.grace_seconds,
            "autoscaling_config": {
                **self.model_dump(exclude={"waiting_rows", "num_cpus", "num_gpus"}),
                "policy": {
                    "policy_function": f"{WaitingRows.__module__}:{WaitingRows.__name__}",
                    "policy_kwargs": {"rows": self.waiting_rows},
                },
            },
        }


class WaitingRows:
    """Ray's controller asks it how many replicas there should be.

    Args:
        rows: That may wait, or be predicted, in each.
    """

    def __init__(self, rows: float) -> None:
        self._rows = rows

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """So many that each has at most its share; as many as there are to be until they have said anything."""
        waiting = (context.aggregated_metrics or {}).get(METRIC)
        if not waiting:
            return context.target_num_replicas, {}
        # Replicas that have just started have not said anything yet, and count like the others.
        rows = sum(waiting.values()) / len(waiting) * context.current_num_replicas
        return rows / self._rows, {}


class Replica:
    """One process of the service, with all its models; Ray's proxies bring the requests.

    Args:
        settings: Of the service.
    """

    def __init__(self, settings: Settings) -> None:
        configure_log(settings.log_level)
        self._application = create_app(settings)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """What Ray runs; its lifespan loads the models, so a replica is there once they answer."""
        return self._application.asgi

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What Ray's controller hears of this replica."""
        return {METRIC: float(self._application.service.budget.rows)}

    def check_health(self) -> None:
        """Ray starts another replica in place of one that raises."""
        if (why := self._application.service.beyond_help) is not None:
            raise RuntimeError(f"{why}; another replica takes its place.")


def app(args: Mapping[str, Any]) -> Application:
    """The service as an application of Ray Serve.

    Args:
        args: Those of `Scaling`, and settings of `dubio-serve` by their names with underscores; the environment's
            `DUBIO_*` variables stand for what is not given. Paths have to be valid on every node.

    Raises:
        InvalidInput: An argument is none, or cannot be used here.
    """
    scaling, settings = read_arguments(args)
    deploy = serve.deployment(**scaling.options(settings))
    application: Application = deploy(serve.ingress()(Replica)).bind(settings)
    return application


def read_arguments(args: Mapping[str, Any]) -> tuple[Scaling, Settings]:
    """Read the arguments of `app`.

    Raises:
        InvalidInput: An argument is none, or cannot be used here.
    """
    given = {name: value for name, value in args.items() if name not in Scaling.model_fields}
    if "workers" in given:
        raise InvalidInput("Expected no `workers`, because Ray starts replicas of one each; set `max_replicas`.")
    for name in given:
        if name in _OF_CONNECTIONS:
            raise InvalidInput(
                f"Expected no `{name}`, because Ray's proxies hold the connections; see `http_options` of Ray Serve."
            )
        if name not in Settings.model_fields:
            known = [*Scaling.model_fields, *Settings.model_fields]
            hint = did_you_mean(name, known, "`dubio-serve --help` lists the settings.")
            raise InvalidInput(f"Expected arguments of the application, but got {name!r}; {hint}")
    try:
        scaling = Scaling.model_validate({name: args[name] for name in args if name in Scaling.model_fields})
        # As workers of one service: what a request can ask of one of them alone is refused.
        settings = Settings(**given, workers=scaling.max_replicas)
        if not settings.models and settings.model_repository is None:
            raise InvalidInput(
                "Expected a model, but got none; name one, models=digits=/models/digits/model.ckpt, or a "
                "model_repository=/models."
            )
        # A replica takes the processors that Ray gives it, not all that it sees.
        threads = settings.torch_threads or max(1, int(scaling.num_cpus))
        fitted = {"torch_threads": threads, "grpc_port": None, **_whole_paths(settings)}
        return scaling, settings.model_copy(update=fitted)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(map(str, first["loc"])).replace("workers", "max_replicas")
        raise InvalidInput(f"{name or 'arguments'}: {first['msg'].removeprefix('Value error, ')}.") from error
    except InvalidModelSource as error:
        raise InvalidInput(str(error)) from error


def _whole_paths(settings: Settings) -> dict[str, Any]:
    """A replica works in a folder of its own, so a path that is relative is completed here."""
    whole: dict[str, Any] = {
        name: value.absolute() for name in Settings.model_fields if isinstance(value := getattr(settings, name), Path)
    }
    sources = map(ModelSource.parse, settings.models)
    whole["models"] = tuple(
        f"{source.name}={'+'.join(str(path.absolute()) for path in source.paths)}" for source in sources
    )
    return whole
