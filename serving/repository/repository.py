"""The models of this service: found on disk, loaded beside the running ones, handed out by name and version."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dubio.models.errors import did_you_mean
from dubio.serving.errors import InvalidModelSource, NotReady, UnknownModel
from dubio.serving.repository import heap
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.reconciler import Control, Reconciler
from dubio.serving.repository.registry import ModelState, Registry, ServedModel, State
from dubio.serving.repository.remote_loader import RemoteLoader
from dubio.serving.repository.source import ModelSource

__all__ = ["ModelRepository", "ModelSource", "ServedModel"]

_log = logging.getLogger("dubio")


class ModelRepository:
    """Loads models and hands them out.

    A model is visible only once it is loaded and has passed its self-test, and until another took its place. All
    loading happens in one thread of its own, one model after the other; handing out never waits for it.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource],
        loader: Loader | RemoteLoader,
        *,
        root: Path | None = None,
        control: Control = "none",
    ) -> None:
        """Load nothing yet.

        Args:
            sources: Models that the operator named.
            loader: Loads them.
            root: Directory of further models, if there is one.
            control: When models are loaded from it; see `Settings.model_control`.

        Raises:
            InvalidModelSource: Two sources share a name, or the root is no directory.
        """
        self._named: dict[str, ModelSource] = {}
        for source in sources:
            if source.name in self._named:
                raise InvalidModelSource(
                    f"Expected model names to differ, but {source.name!r} names both "
                    f"{self._named[source.name].path} and {source.path}; give one of them another: "
                    f"{source.name}-2={source.path}"
                )
            self._named[source.name] = source
        self._registry = Registry(tuple(self._named))
        self._reconciler = Reconciler(self._named, root, control, loader, self._registry)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dubio-load")
        self._started = False
        self._root = root
        self.changed: Callable[[], None] = lambda: None
        """Called after every look at the directory and every load, in the thread for it; must not fail."""

    def load(self) -> None:
        """Load what is to be served from the start.

        Raises:
            UnusableDevice: Torch cannot put a tensor on the device.
            UnreadableCheckpoint: A model cannot be read.
            MismatchedCheckpoints: Checkpoints of an ensemble do not belong together.
            SelfTestFailed: A model's trial predictions cannot be trusted.
            InvalidModelSource: The directory holds no model, or cannot be read.
        """
        self._thread.submit(self._reconciler.start).result()
        self._started = True
        self.changed()

    async def load_model(self, name: str) -> None:
        """Load what is new or changed of a model, unload what is gone; what cannot be loaded stays as it is.

        Raises:
            UnknownModel: Nobody named such a model, and none lies in the directory.
            LoadFailed: A version cannot be served.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._change, self._reconciler.load, name)

    async def unload_model(self, name: str) -> None:
        """Take all versions of a model out of service; requests that have begun are answered.

        Raises:
            UnknownModel: There is no such model.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._change, self._reconciler.unload, name)

    async def reload(self) -> None:
        """Load and unload now what changed on disk; what cannot be loaded stays as it is."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._change, self._reconciler.reload)

    async def look(self) -> None:
        """Load and unload what changed on disk since the last look, and has not changed between the two."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._change, self._reconciler.look)

    def _change(self, change: Callable[..., None], *args: str) -> None:
        """Load or unload, in the thread for it, and let go of what was served and is not any more."""
        before = {id(model) for model in self.all_versions()}
        try:
            change(*args)
        finally:
            self.changed()
            if before - {id(model) for model in self.all_versions()}:
                heap.refreeze()

    async def watch(self, seconds: float) -> None:
        """Look every so many seconds, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.look()
            except Exception:  # whatever it is, what serves goes on, and the next look may succeed
                _log.exception("Could not look for changed models; trying again in %g s.", seconds)

    def close(self) -> None:
        """Wait for the load that is running, drop those that have not begun."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def get(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """Hand out a model.

        Args:
            name: None for the first that the operator named, or else the only one there is.
            version: None for the newest.

        Raises:
            NotReady: Nothing is loaded.
            UnknownModel: No model has this name, or not in this version.
        """
        if not self.ready:
            raise NotReady(self.unready_reason)
        served = self._registry.served
        if name is None:
            name = next(iter(self._named), None)
            if name is None and len(served) > 1:
                raise UnknownModel(
                    f"Expected the name of a model, because there are several and none comes first: "
                    f"{', '.join(served)}."
                )
            name = name or next(iter(served), "")
        if name not in served:
            hint = did_you_mean(name, served, f"loaded: {', '.join(served)}.")
            raise UnknownModel(f"Expected `name` to be a loaded model, but got {name[:100]!r}; {hint}")
        versions = served[name]
        if version is None:
            return list(versions.values())[-1]
        if version not in versions:
            raise UnknownModel(
                f"Expected `version` to be a loaded version of model {name!r}, but got {version[:40]!r}; "
                f"loaded: {', '.join(versions)}."
            )
        return versions[version]

    def versions(self, name: str) -> tuple[str, ...]:
        """List the loaded versions of a model, oldest first; raises what `get` raises."""
        return tuple(model.version for model in self.all_versions(self.get(name).name))

    def all_versions(self, name: str | None = None) -> list[ServedModel]:
        """List every loaded version of a model, oldest first, or of all models."""
        served = self._registry.served
        chosen = served.values() if name is None else [served.get(name, {})]
        return [model for versions in chosen for model in versions.values()]

    def __iter__(self) -> Iterator[ServedModel]:
        """Go through the newest version of every loaded model, those that the operator named first."""
        return iter([list(versions.values())[-1] for versions in self._registry.served.values()])

    @property
    def named(self) -> frozenset[str]:
        """The names that the operator gave to checkpoints."""
        return frozenset(self._named)

    def wanted(self) -> list[tuple[str, str]]:
        """List name and version of what is to be served, be it possible or not, as far as it was tried."""
        return self._registry.wanted()

    def index(self) -> list[ModelState]:
        """Describe every version, loaded or not. Looks into the directory, so it belongs into a thread."""
        states = self._registry.states()
        known = {(state.name, state.version) for state in states}
        try:
            listing = self._reconciler.scan()
        except OSError as error:
            _log.warning("Cannot read the model repository: %s", error)
            return states
        missing = {source.key: "It is not loaded." for source in listing.sources}
        for (name, version), why in listing.skipped.items():
            if version is not None:
                missing[name, version] = f"Its folder cannot be read: {why}."
        others = [ModelState(*key, State.UNAVAILABLE, why) for key, why in missing.items() if key not in known]
        return states + others

    @property
    def ready(self) -> bool:
        """Whether all that was to be served from the start is, and there is at least one model."""
        return self._started and bool(self._registry.served)

    @property
    def unready_reason(self) -> str:
        """Why `ready` is false, for whoever asks."""
        wanted = self._reconciler.wanted
        if not self._started and wanted:
            return f"{len(self._registry.served)} of {wanted} models are loaded so far; try again shortly."
        if self._root is not None:
            return "No model is loaded: put one into the model repository, or have an administrator load one."
        return "No model is loaded: start the service with at least one checkpoint, or set DUBIO_MODELS."
