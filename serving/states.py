"""What is learned from traffic, kept: in memory, or in a folder that workers share and that outlives the service."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dubio.serving.errors import InvalidState, UnusableFolder

_log = logging.getLogger("dubio")

_PATIENCE_SECONDS = 5.0
_NEXT_TRY_SECONDS = 0.01
# Far more than a state takes.
_MOST_BYTES = 64 * 1024


class State(Protocol):
    """An immutable value that can be written down."""

    def dump(self) -> bytes:
        """All of it."""


Kept = TypeVar("Kept", bound=State)
Kept_co = TypeVar("Kept_co", bound=State, covariant=True)


class Slot(Protocol[Kept_co]):
    """What a state is of; equal slots have the same one. Hashable."""

    @property
    def file(self) -> str:
        """The name of its file, which no other slot has."""

    def begin(self) -> Kept_co:
        """The state before anything happened."""

    def load(self, text: bytes) -> Kept_co:
        """Go on with what `dump` gave.

        Raises:
            InvalidState: It is no such state, or one of something else.
        """


class States(ABC):
    """One state for each slot; whoever changes one has it alone meanwhile."""

    @abstractmethod
    def read(self, slot: Slot[Kept]) -> Kept:
        """The state so far.

        Raises:
            UnusableFolder: It cannot be read.
        """

    @abstractmethod
    def change(self, slot: Slot[Kept], change: Callable[[Kept], Kept]) -> tuple[Kept, Kept]:
        """Keep `change(state)` in place of a state; gives what was before, and what is now.

        Raises:
            UnusableFolder: It cannot be kept.
        """


class MemoryStates(States):
    """For one process, until it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[Any, Any] = {}

    def read(self, slot: Slot[Kept]) -> Kept:
        state: Kept = self._states.get(slot) or slot.begin()
        return state

    def change(self, slot: Slot[Kept], change: Callable[[Kept], Kept]) -> tuple[Kept, Kept]:
        with self._lock:
            before = self.read(slot)
            after = self._states[slot] = change(before)
        return before, after


class FolderStates(States):
    """For all processes that are given the same folder: one small file a slot, replaced as a whole.

    So what workers learn is one thing, whichever of them learned it.

    Args:
        folder: Made if it is not there.

    Raises:
        UnusableFolder: Nothing can be kept there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: set[Path] = set()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                pass
        except OSError as error:
            raise self._unusable(error) from error

    def read(self, slot: Slot[Kept]) -> Kept:
        try:
            return self._read(slot)
        except OSError as error:
            raise self._unusable(error) from error

    def change(self, slot: Slot[Kept], change: Callable[[Kept], Kept]) -> tuple[Kept, Kept]:
        path = self._folder / slot.file
        try:
            with self._locked():
                before = self._read(slot)
                after = change(before)
                new = path.with_suffix(".new")
                new.write_bytes(after.dump())
                new.replace(path)
        except OSError as error:
            raise self._unusable(error) from error
        return before, after

    def _read(self, slot: Slot[Kept]) -> Kept:
        path = self._folder / slot.file
        try:
            with path.open("rb") as file:
                text = file.read(_MOST_BYTES + 1)
            if len(text) > _MOST_BYTES:
                raise InvalidState(f"it has more than {_MOST_BYTES} bytes")
            return slot.load(text)
        except FileNotFoundError:
            pass
        except InvalidState as error:
            if path not in self._told:
                self._told.add(path)
                _log.warning("Beginning anew, for %s cannot be gone on with: %s.", path, error)
        return slot.begin()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + _PATIENCE_SECONDS
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(_NEXT_TRY_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def _unusable(self, error: OSError) -> UnusableFolder:
        return UnusableFolder(
            f"Expected to keep what is learned from traffic in {self._folder}, but: {error.strerror}; make room there, "
            "let the service write there, or set `state_folder` to another folder."
        )
