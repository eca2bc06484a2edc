"""Loads models in the process that computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dubio.models.trial import Limits
from dubio.serving.compute.process import ComputeProcess
from dubio.serving.compute.remote_predictor import RemotePredictor
from dubio.serving.repository.engine import Engine
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.registry import ServedModel
from dubio.serving.repository.source import ModelSource
from dubio.serving.settings import Settings


@dataclass(frozen=True)
class RemoteLoader:
    """Loads like the `Loader` of the engine there.

    Attributes:
        process: Which hosts an `Engine`.
    """

    process: ComputeProcess

    def try_device(self) -> None:
        """See `Loader.try_device`; raises `ComputationLost`, too."""
        self.process.call("try_device")

    def load(self, source: ModelSource) -> ServedModel:
        """See `Loader.load`; raises `ComputationLost`, too."""
        key, facts = self.process.call("load", source)
        return ServedModel(source.name, source.version, RemotePredictor(facts, self.process, key))


def build_loader(
    settings: Settings, threads: int, process: ComputeProcess | None, prepare: Callable[[], None]
) -> Loader | RemoteLoader:
    """What loads the models of a service.

    Args:
        settings: Of the service.
        threads: Of torch.
        process: That computes; None for this one.
        prepare: Is called there first of all.
    """
    loader = Loader(
        device=settings.device,
        trusted=settings.trusted,
        strategy=settings.strategy,
        max_bytes=settings.max_model_bytes,
        trial=settings.load_trial == "process" and Limits(settings.load_seconds, settings.load_bytes),
        batch_invariant=settings.batch_invariant,
    )
    if process is None:
        return loader
    process.host(Engine(loader, few=max(1, threads - 1), most=threads), prepare)
    return RemoteLoader(process)
