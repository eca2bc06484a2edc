"""Brings what is served in line with what lies on disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dubio.models.errors import NotEnoughMemory, TrialUnavailable, UnreadableCheckpoint, did_you_mean
from dubio.serving.errors import InvalidModelSource, LoadFailed, UnknownModel
from dubio.serving.repository.directory import Listing, ModelDirectory
from dubio.serving.repository.folder import checkpoint_of
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.registry import Key, Registry
from dubio.serving.repository.remote_loader import RemoteLoader
from dubio.serving.repository.retries import Retries
from dubio.serving.repository.source import ModelSource, Stamp, is_name

Control = Literal["none", "poll", "explicit"]

_log = logging.getLogger("dubio")
_LONGEST_REASON = 1000


@dataclass
class Reconciler:
    """Loads, replaces and unloads; one thread at a time may call it. `ModelRepository` describes what is raised.

    Attributes:
        named: Models that the operator named, by name.
        root: Directory of further models, if there is one.
        control: When models are loaded from it.
        loader: Loads them.
        registry: Told of what was loaded.
        wanted: How many models are to be served from the start.
    """

    named: Mapping[str, ModelSource]
    root: Path | None
    control: Control
    loader: Loader | RemoteLoader
    registry: Registry

    def __post_init__(self) -> None:
        self._directory = None if self.root is None else ModelDirectory(self.root)
        self.wanted = len(self.named)
        # Stamps that the last look found and that are not served; None stands for files that were gone.
        self._seen: dict[Key, Stamp | None] = {}
        self._retries = Retries()
        self._complaints: set[str] = set()

    def scan(self) -> Listing:
        """List all versions there are. A model that the operator named hides one of its name in the directory."""
        others = Listing() if self._directory is None else self._directory.scan()
        listing = Listing()
        for source in self.named.values():
            try:
                listing.sources.append(checkpoint_of(source))
            except InvalidModelSource as error:  # what was served of the folder goes on
                listing.unclear[source.key] = str(error)
        listing.sources.extend(source for source in others.sources if source.name not in self.named)
        listing.skipped.update({key: why for key, why in others.skipped.items() if key[0] not in self.named})
        listing.vain.update(
            {name: why for name, why in others.vain.items() if name.partition("/")[0] not in self.named}
        )
        return listing

    def start(self) -> None:
        """Load what is to be served from the start."""
        self.loader.try_device()
        named = [checkpoint_of(source) for source in self.named.values()]
        try:
            listing = self.scan()
        except OSError as error:
            raise InvalidModelSource(f"Expected to read the model repository, but {error}.") from error
        sources = listing.sources
        if self.control == "explicit":
            sources = named
        if self.control == "none" and self._directory is not None and not sources:
            raise InvalidModelSource(
                f"Expected <name>/<version>/model.ckpt in the model repository {self._directory.root}, but there is "
                "none, and with `model_control` none there will not be; add one, or set `model_control` to poll."
                + "".join(f" {line}" for line in listing.complaints())
            )
        self._complain(listing.complaints())
        self.wanted = len({source.name for source in sources})
        for source in sources:
            failure = self._attempt(source)
            # The operator who named it is waiting to hear; whoever fills the directory reads the index.
            if failure is not None and (self.control != "poll" or source.name in self.named):
                raise failure
            _warn(source, failure)

    def load(self, name: str) -> None:
        """Load what is new or changed of a model, unload what is gone; what cannot be loaded stays as it is."""
        listing = self._of(name)
        present = [source.key for source in listing.sources]
        for key in self.registry.known():
            if key[0] == name and key not in present and not listing.skips(key):
                self._forget(key)
        failures = [f"version {key[1]}: its folder cannot be read: {why}." for key, why in listing.skipped.items()]
        for source in listing.sources:
            current = self.registry.is_current(source.key, source.stamp())
            if not current and (error := self._attempt(source)) is not None:
                _warn(source, error)
                failures.append(f"version {source.version}: {_reason(error)}")
        if failures:
            served = ", ".join(self.registry.served.get(name, {})) or "none"
            raise LoadFailed(f"Failed to load {name!r}, {' '.join(failures)} Versions that are served: {served}.")

    def unload(self, name: str) -> None:
        """Take all versions of a model out of service."""
        keys = [key for key in self.registry.known() if key[0] == name]
        if not keys:
            self._of(name)
        for key in keys:
            if self.registry.is_served(key):
                self.registry.unloaded(key, "It was unloaded by request.")
                _log.info("Unloaded model %s version %s.", *key)

    def _of(self, name: str) -> Listing:
        if name in self.named:
            try:
                return Listing([checkpoint_of(self.named[name])])
            except InvalidModelSource as error:
                _log.warning("%s", error)
                raise LoadFailed(
                    f"Failed to load {name!r}: its folder does not hold exactly one checkpoint; put one there. The log "
                    "says what it holds."
                ) from error
        listing = Listing() if self._directory is None else self._directory.of(name)
        if (name, None) in listing.skipped:
            raise LoadFailed(f"Failed to load {name!r}: its folder cannot be read: {listing.skipped[name, None]}.")
        if not listing.sources and not listing.skipped and not any(key[0] == name for key in self.registry.known()):
            if listing.vain:
                raise LoadFailed(f"Failed to load {name!r}. {' '.join(listing.complaints())}")
            what = f"{name[:100]!r}" if is_name(name) else "a name that no model can have"
            others = "`POST /v2/repository/index` lists them."
            if self._directory is None:
                others = "there is no repository, which `--model-repository` would name."
            cure = did_you_mean(name, {key[0] for key in self.registry.known()}, others)
            raise UnknownModel(f"Expected the name of a model in the repository, but got {what}; {cure}")
        return listing

    def look(self) -> None:
        """Load and unload what changed on disk since the last look, and has not changed between the two.

        What could not be loaded for want of memory, say, is tried again; see `Retries`.
        """
        try:
            listing = self.scan()
        except OSError as error:
            self._complain([f"Cannot read the model repository, so nothing changes: {error}"])
            return
        present = {source.key: source for source in listing.sources}
        gone = [key for key in self.registry.known() if key not in present and not listing.skips(key)]
        if gone and all(name in self.named for name, _ in present):
            # More likely a volume that is not mounted than somebody who wants no model any more.
            self._complain(
                [*listing.complaints(), "The model repository is empty all at once, so nothing is unloaded."]
            )
            return
        self._complain([*listing.complaints(), *self._missing(listing.sources)])
        self._seen = {key: stamp for key, stamp in self._seen.items() if key in present or key in gone}
        for key in gone:
            if self._unchanged(key, None):
                self._forget(key)
        for key, source in present.items():
            stamp = source.stamp()
            if stamp is None or stamp == self.registry.stamp(key):
                self._seen.pop(key, None)
                if stamp is not None and self._retries.due(key):
                    _warn(source, self._attempt(source))
            elif self._unchanged(key, stamp):
                _warn(source, self._attempt(source))

    def _missing(self, sources: Iterable[ModelSource]) -> Iterator[str]:
        """Sentences for those that wait for a file, but for what was told when it was tried."""
        for source in sources:
            told = source.key in self.registry.known() and not self.registry.is_served(source.key)
            if source.stamp() is None and not told:
                yield f"Model {source.name} version {source.version} waits: a checkpoint of it cannot be opened."

    def reload(self) -> None:
        """Load and unload now what changed on disk; with `control` explicit, of the models that are served."""
        if self.control != "explicit":
            self.look()
            self.look()  # which need not wait for a third: whoever asks for it has put everything in place
            return
        for name in list(self.registry.served):
            try:
                self.load(name)
            except (LoadFailed, UnknownModel) as error:
                _log.warning("%s", error)

    def _unchanged(self, key: Key, stamp: Stamp | None) -> bool:
        """Tell whether the last look found the same; remember it for the next one otherwise."""
        if key in self._seen and self._seen[key] == stamp:
            del self._seen[key]
            return True
        self._seen[key] = stamp
        return False

    def _attempt(self, source: ModelSource) -> Exception | None:
        """Load a version and let it take over; what prevented it goes into the index, and is returned."""
        began = time.monotonic()
        stamp = source.stamp()
        self.registry.loading(source.key)
        try:
            model = self.loader.load(source)
        except Exception as error:  # whatever a file can do; what serves goes on
            self._retries.failed(source.key, error)
            self.registry.failed(source.key, stamp, _reason(error))
            return error
        self._retries.forget(source.key)
        self.registry.loaded(model, stamp)
        _log.info("Loaded model %s version %s in %.1f s.", *source.key, time.monotonic() - began)
        return None

    def _forget(self, key: Key) -> None:
        self._retries.forget(key)
        self.registry.forget(key)
        _log.info("Unloaded model %s version %s, which is not in the repository any more.", *key)

    def _complain(self, texts: Iterable[str]) -> None:
        """Log every lasting trouble once."""
        now = dict.fromkeys(texts)
        for text in now:
            if text not in self._complaints:
                _log.warning("%s", text)
        self._complaints = set(now)


def _warn(source: ModelSource, error: Exception | None) -> None:
    if error is not None:
        _log.warning("Cannot serve model %s version %s: %s", *source.key, " ".join(str(error).split()))


def _reason(error: Exception) -> str:
    """Why a model cannot be served, without the paths of this machine."""
    text = str(error) or type(error).__name__
    if isinstance(error, UnreadableCheckpoint | NotEnoughMemory | TrialUnavailable):
        text = error.reason
    return " ".join(text.split())[:_LONGEST_REASON]
