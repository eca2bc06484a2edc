"""The registry of models: which are served, and how every other version stands."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from weakref import ref

from dubio.serving.compute.model_facts import ModelFacts
from dubio.serving.compute.remote_predictor import AnyPredictor, RemotePredictor
from dubio.serving.repository.source import Stamp


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A predictor that may answer requests.

    Whoever holds one may go on using it after another took its place; it goes when nobody does.
    """

    name: str
    version: str
    predictor: AnyPredictor

    @cached_property
    def facts(self) -> ModelFacts:
        """What is known of it without asking it."""
        return self.predictor.facts if isinstance(self.predictor, RemotePredictor) else ModelFacts.of(self.predictor)


Key = tuple[str, str]
Served = Mapping[str, Mapping[str, ServedModel]]


class State(StrEnum):
    """How a version stands, in the words of the Open Inference Protocol."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True)
class ModelState:
    """A line of the repository's index."""

    name: str
    version: str
    state: State
    reason: str = ""


@dataclass(frozen=True)
class _Entry:
    state: State
    reason: str = ""
    model: ServedModel | None = None
    stamp: Stamp | None = None  # of the files that were loaded, or tried last
    leaving: ref[ServedModel] | None = None  # until the last request that uses it is answered
    wanted: bool = True


class Registry:
    """Versions by name. Written by the one thread that loads, read by all."""

    def __init__(self, first: Sequence[str]) -> None:
        """Know nothing yet; models named in `first` come first, in this order, and all others follow by name."""
        self._first = tuple(first)
        self._lock = threading.Lock()
        self._entries: dict[Key, _Entry] = {}
        self.served: Served = MappingProxyType({})
        """What may be asked: versions by name, oldest first. Replaced as a whole, so read it once."""

    def known(self) -> list[Key]:
        """List every version that anything is known about."""
        with self._lock:
            return list(self._entries)

    def wanted(self) -> list[Key]:
        """List every version that is to be served, be it possible or not: all but those unloaded by request."""
        with self._lock:
            return [key for key, entry in self._entries.items() if entry.wanted]

    def stamp(self, key: Key) -> Stamp | None:
        """Tell which files this version was loaded from, or which could not be loaded; None if it never was tried."""
        entry = self._entries.get(key)
        return None if entry is None else entry.stamp

    def is_served(self, key: Key) -> bool:
        """Tell whether this version may be asked."""
        return key[1] in self.served.get(key[0], {})

    def is_current(self, key: Key, stamp: Stamp | None) -> bool:
        """Tell whether this version is served from files with this stamp."""
        entry = self._entries.get(key)
        return entry is not None and entry.model is not None and not entry.reason and entry.stamp == stamp

    def states(self) -> list[ModelState]:
        """Describe every version, in order."""
        with self._lock:
            entries = list(self._entries.items())
        return [_describe(key, entry) for key, entry in sorted(entries, key=lambda item: self._place(item[0]))]

    def loading(self, key: Key) -> None:
        """Note that this version is being loaded; what serves meanwhile stays."""
        if not self.is_served(key):
            self._put(key, _Entry(State.LOADING))

    def loaded(self, model: ServedModel, stamp: Stamp | None) -> None:
        """Let `model` answer for its name and version from now on."""
        self._put((model.name, model.version), _Entry(State.READY, model=model, stamp=stamp))

    def failed(self, key: Key, stamp: Stamp | None, reason: str) -> None:
        """Note that the files could not be loaded; what was served under this version stays."""
        entry = self._entries[key]
        if entry.model is not None:
            kept = f"Its file was replaced, but the new one cannot be served, so the old one goes on: {reason}"
            self._put(key, replace(entry, reason=kept, stamp=stamp))
        else:
            self._put(key, _Entry(State.UNAVAILABLE, reason, stamp=stamp))

    def unloaded(self, key: Key, reason: str) -> None:
        """Take this version out of service."""
        model = self._entries[key].model
        leaving = None if model is None else ref(model)
        self._put(key, _Entry(State.UNAVAILABLE, reason, leaving=leaving, wanted=False))

    def forget(self, key: Key) -> None:
        """Take this version out of service and out of the index."""
        self._put(key, None)

    def _put(self, key: Key, entry: _Entry | None) -> None:
        with self._lock:
            if entry is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = entry
            served: dict[str, dict[str, ServedModel]] = {}
            for (name, version), known in sorted(self._entries.items(), key=lambda item: self._place(item[0])):
                if known.model is not None:
                    served.setdefault(name, {})[version] = known.model
            self.served = MappingProxyType(served)

    def _place(self, key: Key) -> tuple[int, str, int]:
        name, version = key
        rank = self._first.index(name) if name in self._first else len(self._first)
        return rank, name, int(version)


def _describe(key: Key, entry: _Entry) -> ModelState:
    if entry.leaving is not None and entry.leaving() is not None:
        return ModelState(*key, State.UNLOADING, "It finishes the requests that it has begun.")
    return ModelState(*key, entry.state, entry.reason)
