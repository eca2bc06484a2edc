"""Everything an operator can set, by argument or by a `DUBIO_*` environment variable."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """The service's settings; frozen, so that what started is what runs."""

    model_config = SettingsConfigDict(env_prefix="DUBIO_", frozen=True, extra="forbid")

    models: Annotated[tuple[str, ...], NoDecode] = ()
    """Checkpoints to serve, each `path` or `name=path`; the first is the default model.
    In the environment, commas separate them."""

    host: str = "127.0.0.1"
    """Address to listen on. The default is reachable from this machine only."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 lets the system choose a free one, which the start-up line names."""

    device: str = "cpu"
    """Where the networks run, as torch names it: `cpu`, `cuda`, `cuda:1`."""

    trusted: Annotated[tuple[str, ...], NoDecode] = ()
    """Module prefixes whose networks a checkpoint may name besides Dubio's own.
    Code in them runs when a model loads."""

    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Largest request body, in bytes."""

    max_rows: int = Field(default=1024, ge=1)
    """Most instances in one request."""

    body_seconds: float = Field(default=30.0, gt=0)
    """How long a request's body may take to arrive."""

    prediction_threads: int = Field(default=2, ge=1, le=64)
    """How many predictions run at the same time. Two keep a small request from waiting behind a large one."""

    torch_threads: int | None = Field(default=None, ge=1, le=1024)
    """Threads torch may use within one prediction.
    Unset: the processors at hand divided by `prediction_threads`."""

    grace_seconds: int = Field(default=30, ge=0)
    """After SIGTERM, how long requests in flight may take to finish."""

    keep_alive_seconds: int = Field(default=75, ge=1)
    """How long an idle connection stays open.
    Longer than the 60 s of common load balancers, which would otherwise reuse closed connections."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe message that is logged."""

    access_log: bool = False
    """Log one line for every request. Off by default: `/metrics` counts them at a fraction of the cost."""

    @field_validator("models", "trusted", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value
