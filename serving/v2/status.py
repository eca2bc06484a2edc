"""How the service and its models stand, for the calls of the Open Inference Protocol over every transport."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dubio.serving.errors import NotReady, UnknownModel
from dubio.serving.lifecycle import Lifecycle
from dubio.serving.repository.repository import ModelRepository, ServedModel
from dubio.serving.service import PredictionService


def look_up(repository: ModelRepository, name: str, version: str | None) -> ServedModel:
    """The model of this name.

    Raises:
        NotReady: Nothing is loaded.
        UnknownModel: No such model or version, in words that the protocol's clients look for.
    """
    try:
        return repository.get(name, version)
    except UnknownModel as error:
        which = f"'{name[:100]}'" + ("" if version is None else f" version {version[:40]}")
        raise UnknownModel(f"Request for unknown model: {which} is not found. {error}") from error


def require_ready(service: PredictionService, lifecycle: Lifecycle) -> None:
    """Check that requests may be sent here.

    Args:
        service: Whether models are loaded, and answer.
        lifecycle: Whether the process is stopping.

    Raises:
        NotReady: They may not.
    """
    if lifecycle.stopping:
        raise NotReady("The service is stopping; ask another one.")
    if not service.repository.ready:
        raise NotReady(service.repository.unready_reason)
    service.require_progress()


def report(service: PredictionService, models: Iterable[ServedModel]) -> dict[str, Any]:
    """What these models did."""
    return {"model_stats": [service.telemetry.statistics(model).report() for model in models]}
