"""Everything an operator can set, by option of `dubio-serve` or by a `DUBIO_*` environment variable."""

from __future__ import annotations

import os
import re
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from dubio.serving.environment import KEYS, PREFIX, Environment, variable

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+\Z")
_HOST = re.compile(r"(\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?)\Z")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+\Z")
# A prefix that begins like a path of the service's own could not be told from it.
OWN_PATHS = frozenset({"v1", "v2", "static", "docs", "redoc", "openapi.json", "metrics"})
_Names = Annotated[tuple[str, ...], NoDecode]

SECTIONS = {
    "models": "models",
    "host": "address and processes",
    "device": "prediction",
    "max_head_bytes": "limits of a request",
    "grace_seconds": "end",
    "api_keys_file": "access",
    "store": "store",
    "shadow_share": "shadows and drift",
    "log_level": "telemetry",
}
"""Titles of the sections, by their first setting."""


class Settings(BaseSettings):
    """The service's settings; frozen, so that what started is what runs.

    What stands under a setting is its help on the command line.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True)

    models: CliPositionalArg[_Names] = ()
    """Checkpoints to serve, each `path` or `name=path`; a folder stands for the one checkpoint in it. The first is the
    default model, and `name=first.ckpt+second.ckpt` is an ensemble. In DUBIO_MODELS, commas separate them."""

    model_repository: Path | None = None
    """Directory of further models: `<name>/<version>/model.ckpt`, versions being numbers, the highest the default.
    Several files `model-*.ckpt` in a version's folder are one ensemble."""

    model_control: Literal["none", "poll", "explicit"] = "none"
    """When models are loaded. `none`: all at the start, which fails if one of them cannot be served; later only by
    an administrator's request. `poll`: also whenever files change, by themselves. `explicit`: from the directory,
    nothing but what an administrator requests."""

    max_model_bytes: int = Field(default=4 * 1024 * 1024 * 1024, ge=1024)
    """Largest checkpoint file, in bytes; a larger one is refused before it is read. A load takes up to three times as
    much memory as the file has."""

    load_trial: Literal["process", "none"] = "process"
    """Where a checkpoint is loaded first: in a process of its own, with the limits below, so that one that is broken or
    hostile harms no model that is served. `none`: nowhere, for places where no process can be started."""

    load_seconds: float = Field(default=120.0, ge=1, le=86400)
    """Processor time that a trial load may take; by the clock five times as long."""

    load_bytes: int = Field(default=4 * 1024 * 1024 * 1024, ge=1024 * 1024)
    """Memory that a trial load may take, besides four times the size of the file."""

    poll_seconds: float = Field(default=5.0, ge=0.1)
    """How often to look for changes with `model_control` `poll`.
    A file is loaded once two looks in a row found it unchanged."""

    trusted: _Names = ()
    """Module prefix of networks of your own, which a checkpoint may name besides Dubio's; repeatable.
    Code in them runs when a model loads."""

    host: str = "127.0.0.1"
    """Address to listen on. The default is reachable from this machine only; `0.0.0.0` from the whole network."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 lets the system choose a free one, which the start-up line names."""

    grpc_port: int | None = Field(default=None, ge=0, le=65535)
    """Port to listen on for gRPC, at the same `host`; 0 lets the system choose a free one, which the start-up line
    names. Unset: nothing is answered over gRPC. Needs `pip install 'dubio[grpc]'`."""

    root_path: str | None = None
    """Path under which a reverse proxy publishes the service, such as `/dubio`, whether it removes it from the
    requests or not. The API's description names it."""

    trusted_proxies: _Names = ()
    """Address or network of a reverse proxy, such as `10.0.0.0/8`, whose `X-Forwarded-For` says who the client is;
    repeatable. By default nobody's does. In DUBIO_TRUSTED_PROXIES, commas separate them."""

    workers: int = Field(default=1, ge=1, le=256)
    """How many processes serve, each with all models, behind one port.
    The processors are divided among them."""

    keep_alive_seconds: int = Field(default=75, ge=1)
    """How long an idle connection stays open.
    Longer than the 60 s of common load balancers, which would otherwise reuse closed connections."""

    device: str = "cpu"
    """Where the networks run, as torch names it: `cpu`, `cuda`, `cuda:1`."""

    strategy: str | None = None
    """How the members of every model are run: `chain`, `thinned`, `traced`, `vmap`, `fold` or `loop`, or what a model's
    card says, such as `chain up to 16 rows, thinned (up to 38 members: chain)`. Unset: the fastest way for each size of
    batch, for all members and for a few, found by measuring when a model loads. A model that cannot be run in this way
    is not loaded."""

    batch_invariant: bool = False
    """Give an input the same members' answers, p-value and flag to the last bit, whoever shares its batch; its
    deterministic answer is so anyway. One strategy then runs batches of every size, which costs speed. A model that has
    none for it is not loaded."""

    predict_in: Literal["auto", "process", "thread"] = "auto"
    """Where predictions are computed. `process`: in a process of their own beside each worker, so that networks and
    requests never wait for the same interpreter; both end together. `thread`: in the worker, which takes less memory.
    `auto`: in a process where the command has two processors or more for each worker, else in a thread."""

    prediction_threads: int = Field(default=2, ge=1, le=64)
    """How many predictions run at the same time. Two keep a small request from waiting behind a large one."""

    torch_threads: int | None = Field(default=None, ge=1, le=1024)
    """Threads torch may use within one prediction.
    Unset: `OMP_NUM_THREADS`, or else all processors at hand, or this worker's share of them: the members of a model are
    computed one batch at a time, so that predictions rarely compete. In a process of their own, models of short
    predictions leave one of several to the requests."""

    max_batch_rows: int = Field(default=64, ge=1)
    """Most rows that are predicted together. Larger requests still are, alone."""

    batch_delay_seconds: float = Field(default=0.0, ge=0, le=1)
    """How long the first request of a batch may wait for others although the model is idle.
    With 0, requests wait only while the model is busy."""

    overload_samples: int | None = Field(default=None, ge=2)
    """How many members answer while the queue is more than half full. The reply says so, and has no flag,
    which was calibrated for all members. Unset: always all."""

    max_head_bytes: int = Field(default=64 * 1024, ge=1024)
    """Largest request head, in bytes: method, path and header fields; beyond that, 431."""

    head_seconds: float = Field(default=10.0, gt=0)
    """How long a request's head may take to arrive, from its first byte; then 408.
    Connections that say nothing have `keep_alive_seconds`."""

    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Largest request body, in bytes."""

    body_seconds: float = Field(default=30.0, gt=0)
    """How long a request's body may take to arrive."""

    max_rows: int = Field(default=1024, ge=1)
    """Most instances in one request."""

    grpc_max_calls: int = Field(default=1024, ge=1)
    """Most calls over gRPC that are answered at a time; beyond that, RESOURCE_EXHAUSTED."""

    max_queue_rows: int = Field(default=4096, ge=1)
    """Most rows that may wait or be computed at a time; beyond that, 503 with Retry-After."""

    max_queue_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """Most bytes of inputs that may wait or be computed at a time."""

    timeout_seconds: float = Field(default=60.0, gt=0)
    """How long a request may wait for its answer, unless it asks for less; then 504."""

    stalled_seconds: float | None = Field(default=None, gt=0)
    """How long a batch may be computed before its model, and with it the service, is not ready.
    Unset: `timeout_seconds`, after which nobody waits for it any more."""

    hung_seconds: float | None = Field(default=None, gt=0)
    """How long a batch may be computed before `/v2/health/live` answers 503, so that the process is started anew.
    One of several workers is replaced then. Unset: five times `stalled_seconds`."""

    grace_seconds: int = Field(default=30, ge=0)
    """After SIGTERM, how long until the service has ended, requests in flight included."""

    drain_seconds: float = Field(default=0.0, ge=0)
    """After SIGTERM, how long to go on accepting requests while `/v2/health/ready` already answers 503,
    so that load balancers stop sending before the port closes. Part of `grace_seconds`."""

    api_keys_file: Path | None = None
    """File of API keys, one `scope[,scope]:key` a line; the scopes are infer, review, admin and metrics.
    Without any key everybody may predict and nobody administrate. Set but empty, it stops the start."""

    api_keys: SecretStr | None = None
    """More API keys, in the file's form but separated by white space. The file is safer: other programs can
    often see an environment."""

    allowed_hosts: _Names = ()
    """Name by which clients or a reverse proxy reach this service, such as `dubio.example.org`, `*.example.org`, or
    `*` for any; repeatable. Addresses, localhost and what `host` names need not be. In DUBIO_ALLOWED_HOSTS, commas
    separate them."""

    cors_origins: _Names = ()
    """Web origin whose pages may call this service from a browser, such as `https://app.example.org`, or `*`;
    repeatable. In DUBIO_CORS_ORIGINS, commas separate them."""

    store: Path | None = None
    """File of a SQLite database, such as `runs/store.sqlite`, in which flagged answers are kept with their inputs, to
    be reviewed. It is made if it is not there. Unset: nothing is kept, unless DUBIO_DATABASE_URL is set."""

    database_url: SecretStr | None = None
    """Instead of `store`: `postgresql://USER:PASSWORD@HOST/NAME`, which needs `pip install 'dubio[postgres]'`, or
    `sqlite:///PATH`."""

    store_input: Literal["input", "thumbnail", "hash"] = "input"
    """What is kept of an input: all of it, of images a picture of at most 32 x 32 pixels (of others nothing), or
    nothing but its SHA-256. Only what is kept in full can be exported for training."""

    store_share: float = Field(default=0.01, ge=0, le=1)
    """Share of the rows that are not flagged which is kept, too."""

    store_days: float = Field(default=30.0, gt=0)
    """How many days rows are kept."""

    store_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024 * 1024)
    """Most bytes that all rows may take; beyond that the oldest go, those first that nobody reviewed."""

    store_queue_rows: int = Field(default=20_000, ge=1)
    """Most rows that may wait to be written in a process, while the database is slow or down; further ones are lost."""

    store_queue_bytes: int = Field(default=128 * 1024 * 1024, ge=1024)
    """Most bytes that these may take."""

    store_wait_seconds: float = Field(default=5.0, gt=0)
    """How long an answer waits at most to say `Dubio-Stored: true`, if its request says `Dubio-Store: wait`."""

    shadow_share: float = Field(default=0.02, gt=0, le=1)
    """Share of the processors at hand (of a worker: of its own) that a shadow may take; what it could not answer
    within it is skipped. A shadow is a version in a folder such as `<name>/3.shadow`."""

    shadow_margin: float = Field(default=0.05, gt=0, lt=1)
    """By which share of the rows a shadow may be less accurate, or flag more, and still be promoted. Where no true
    labels come (`/v1/feedback`, with a store), all that it changes count. Another value begins the comparison anew, as
    does another `shadow_alpha`."""

    shadow_alpha: float = Field(default=0.05, gt=0, lt=1)
    """How likely a shadow that is worse by more than the margin may ever be promoted without force; it is promoted
    at an e-value of 1 / `shadow_alpha`."""

    state_folder: Path | None = None
    """Folder where the service keeps what is to outlive it: the evidence of drift and of comparisons. It is made if it
    is not there. Unset: that begins anew with every start."""

    drift_alpha: float = Field(default=0.01, gt=0, lt=1)
    """How likely the evidence of a model's drift may ever raise a false alarm, besides the chance that its calibration
    rows were unlucky; the alarm is raised at an e-value of 1 / `drift_alpha`. Another value begins anew."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe message that is logged."""

    access_log: bool = False
    """Write one line of JSON for every request to the standard output; never a body, never a key.
    Off by default: `/metrics` counts them at a fraction of the cost."""

    tracing: bool = False
    """Send OpenTelemetry traces to where the standard `OTEL_*` variables say. Needs `pip install 'dubio[otel]'`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given goes before the environment; there is nothing else."""
        return init_settings, Environment(settings_cls)

    @field_validator("models", "trusted", "trusted_proxies", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_what_is_empty(cls, value: object, info: ValidationInfo) -> object:
        # Of the environment only keys come here empty. An empty path would be the working directory.
        parts = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(part, str) and not part.strip() for part in parts):
            name = str(info.field_name)
            if name in KEYS:
                raise ValueError(
                    f"{variable(name)} is to say who may call the service, but is empty; give it what holds a "
                    "scope:key, or unset it if everybody may"
                )
            raise ValueError("it is empty; give it a value, or leave it out")
        return value

    @field_validator("grpc_port")
    @classmethod
    def _refuse_the_port_of_http(cls, port: int | None, info: ValidationInfo) -> int | None:
        if port and port == info.data.get("port"):
            raise ValueError("it is the port of HTTP, too; gRPC needs one of its own")
        return port

    @field_validator("root_path")
    @classmethod
    def _refuse_what_is_no_prefix(cls, path: str | None) -> str | None:
        path = (path or "").rstrip("/") or None
        if path is not None and (not _ROOT_PATH.match(path) or path.split("/")[1] in OWN_PATHS):
            raise ValueError(
                "it must begin with / and be made of A-Z a-z 0-9 . _ ~ - between slashes, and not begin with a path of "
                f"the service's own ({', '.join(sorted(OWN_PATHS))})"
            )
        return path

    @field_validator("trusted_proxies")
    @classmethod
    def _refuse_what_is_no_network(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ip_network(proxy)
            except ValueError as error:
                raise ValueError(
                    f"{error}; write an address or a network, such as 10.0.0.0/8, of the proxies in front"
                ) from error
        return proxies

    @field_validator("allowed_hosts")
    @classmethod
    def _refuse_what_is_no_host(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.match(host):
                raise ValueError(f"{host!r} is no host name: write it without scheme, port and path, or *")
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _refuse_what_is_no_origin(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.match(origin):
                raise ValueError(f"{origin!r} is no origin: write scheme://host[:port] without a path, or *")
        return origins

    @field_validator("strategy")
    @classmethod
    def _refuse_what_is_no_strategy(cls, strategy: str | None) -> str | None:
        if strategy is None:
            return None
        from dubio.uncertainty.execution.choice import Choice  # loads torch, which the other settings do without

        return str(Choice.parse(strategy))

    @field_validator("workers")
    @classmethod
    def _requests_reach_all_workers(cls, workers: int, info: ValidationInfo) -> int:
        if workers > 1 and info.data.get("model_control") == "explicit":
            raise ValueError("with model_control explicit it must be 1, because a request reaches one worker only")
        return workers

    @field_validator("database_url")
    @classmethod
    def _one_store(cls, url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if url is not None and info.data.get("store") is not None:
            raise ValueError("it stands for another place than `store`, which is set, too; unset one of them")
        return url

    @field_validator("hung_seconds")
    @classmethod
    def _stalled_before_hung(cls, seconds: float | None, info: ValidationInfo) -> float | None:
        stalled = info.data.get("stalled_seconds") or info.data.get("timeout_seconds", 0.0)
        if seconds is not None and seconds < stalled:
            raise ValueError(f"it comes after stalled_seconds, which is {stalled:g} (unset: timeout_seconds)")
        return seconds

    @field_validator("drain_seconds")
    @classmethod
    def _drain_within_grace(cls, seconds: float, info: ValidationInfo) -> float:
        # Not in a validator of the whole model: its error would hold all settings, keys included.
        if seconds > info.data.get("grace_seconds", seconds):
            raise ValueError(f"it is part of grace_seconds, which is {info.data['grace_seconds']}")
        return seconds


def available_processors() -> int:
    """How many processors this process may run on, where the system tells; otherwise all that there are."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
