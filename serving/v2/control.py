"""Loading and unloading models by request, over every transport."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dubio.serving.errors import ControlRefused
from dubio.serving.repository.registry import ModelState
from dubio.serving.repository.repository import ModelRepository
from dubio.serving.settings import Settings


@dataclass(frozen=True)
class RepositoryControl:
    """What administrators may do with the models.

    Attributes:
        repository: The models.
        settings: Of the operator.
    """

    repository: ModelRepository
    settings: Settings

    async def index(self, *, only_ready: bool) -> list[ModelState]:
        """What there is, loaded or not."""
        states = await asyncio.to_thread(self.repository.index)
        return [state for state in states if not only_ready or state.state == "READY"]

    async def load(self, name: str) -> None:
        """Load what is new or changed of a model.

        Raises:
            ControlRefused: The service was not started so.
            UnknownModel: There is no such model.
            LoadFailed: A version cannot be served.
        """
        self._require()
        await self.repository.load_model(name)

    async def unload(self, name: str) -> None:
        """Take a model out of service.

        Raises:
            ControlRefused: The service was not started so.
            UnknownModel: There is no such model.
        """
        self._require()
        await self.repository.unload_model(name)

    def _require(self) -> None:
        if self.settings.model_control == "poll":
            raise ControlRefused(
                "Expected `model_control` to be none or explicit for loading and unloading by request, but it is poll: "
                "the directory says what is served; change it there."
            )
        if self.settings.workers > 1:
            raise ControlRefused(
                f"Expected one worker for loading and unloading by request, but there are {self.settings.workers}, and "
                "a request reaches one of them only; start the service with `model_control` poll."
            )
