"""The output: parts in a folder beside it, each there or not there, which become one file when all are."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import polars as pl

from dubio.models.errors import InvalidInput
from dubio.scale.part import Part
from dubio.scale.readers.rows import Span

_LOCK, _JOINING = "lock", "joining"


class Output:
    """Takes parts in any order, keeps them over a kill, and joins them.

    Every file is written under another name, forced to disk and then renamed, a part's rejects before the part. So a
    part that is there is whole, and one that is not is scored again from its first row: no row is lost, and none is
    there twice.

    Args:
        path: Of the file to write.
        rejects: Of the file of rows that the model does not take; it is there only if there are such.
        suffix: The format.
    """

    def __init__(self, path: Path, rejects: Path, suffix: str) -> None:
        self.path, self.rejects, self.suffix = path, rejects, suffix
        self.folder = path.with_name(f"{path.name}.parts")
        self._old = path.with_name(f"{path.name}.parts.old")

    @contextmanager
    def begun(self, identity: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
        """Begin, or go on with what another process has begun.

        Args:
            identity: Of the job; parts of another one are not taken.
            overwrite: Whether an output that is there is replaced once this one is whole, and parts of another job now.

        Raises:
            InvalidInput: If something else is there already, or somebody writes there.
        """
        shutil.rmtree(self._old, ignore_errors=True)
        if not overwrite and not (self.folder / _JOINING).exists():
            for path in (self.path, self.rejects):
                if path.exists():
                    raise InvalidInput(f"{path}: is there already; add --overwrite, or name another file.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rejects.parent.mkdir(parents=True, exist_ok=True)
        with _lock(self.folder):
            held = self.folder / "job.json"
            problem = self._problem(held, identity)
            if problem is not None and not overwrite:
                raise InvalidInput(problem)
            if problem is not None or not held.exists():
                self._clear()
                _write(held, json.dumps(identity, indent=1).encode())
            try:
                yield
            except BaseException:
                if not self.done():  # there is nothing to go on with
                    shutil.rmtree(self.folder, ignore_errors=True)
                raise

    def keep_spans(self, spans: Sequence[Span]) -> None:
        """Remember how the source is divided."""
        _write(self.folder / "spans.json", json.dumps([astuple(span) for span in spans]).encode())

    def spans(self) -> list[Span] | None:
        """How it is divided; None if nobody has looked yet."""
        path = self.folder / "spans.json"
        return [Span(*each) for each in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else None

    def done(self) -> set[int]:
        """Numbers of the parts that are there."""
        return {int(path.stem.removeprefix("part-")) for path in self.folder.glob(f"part-*{self.suffix}")}

    def write(self, part: Part) -> None:
        """Take a part."""
        if part.rejects:
            _write(self._reject(part.number), part.rejects)
        _write(self._part(part.number), part.answers)

    def finish(self, parts: int) -> int:
        """Join all parts.

        Args:
            parts: How many they are.

        Returns:
            How many rows were rejected.
        """
        numbers = range(parts)
        rejects = [path for path in map(self._reject, numbers) if path.exists()]
        _write(self.folder / _JOINING, b"")  # from here on, what is under the names of the output is ours
        if rejects:
            _join(rejects, self.rejects, "")
        else:
            self.rejects.unlink(missing_ok=True)
        _join(list(map(self._part, numbers)), self.path, self.suffix)
        os.replace(self.folder, self._old)  # what is half removed is not taken for parts
        shutil.rmtree(self._old, ignore_errors=True)  # another one that begins may be removing it, too
        if not self.rejects.exists():
            return 0
        with self.rejects.open("rb") as lines:
            return sum(1 for _ in lines)

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:06}{self.suffix}"

    def _reject(self, number: int) -> Path:
        return self.folder / f"rejects-{number:06}"

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name != _LOCK:
                path.unlink()

    def _problem(self, path: Path, identity: Mapping[str, Any]) -> str | None:
        """Why the parts that are there are not this job's; None if they are, or there are none."""
        if not path.exists():
            return None
        held = json.loads(path.read_text(encoding="utf-8"))
        for name, value in json.loads(json.dumps(identity)).items():
            if held.get(name) != value:
                return (
                    f"{self.folder}: holds parts of another job, whose {name} is {str(held.get(name))[:200]} and not "
                    f"{str(value)[:200]}; finish that one with its own command, or add --overwrite to begin anew."
                )
        return None


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Nobody else in the folder; the lock goes with the process."""
    with (folder / _LOCK).open("w") as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InvalidInput(
                    f"{folder}: another dubio-score is writing there; wait until it has ended."
                ) from error
        yield


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        _settle(file.fileno())
    _move(temporary, path)


def _join(parts: Sequence[Path], path: Path, suffix: str) -> None:
    """One file of many, in their order."""
    temporary = path.with_name(f".{path.name}.tmp")
    if suffix == ".parquet":
        pl.scan_parquet(list(parts), glob=False).sink_parquet(temporary)
        with temporary.open("rb+") as file:
            _settle(file.fileno())
    else:
        header = _header(parts[0]) if suffix == ".csv" else 0
        with temporary.open("wb") as file:
            for number, part in enumerate(parts):
                with part.open("rb") as content:
                    content.seek(header if number else 0)
                    shutil.copyfileobj(content, file, 2**20)
            _settle(file.fileno())
    _move(temporary, path)


def _header(part: Path) -> int:
    """Bytes of the header of a CSV file; a name may go over several lines."""
    with part.open(encoding="utf-8", newline="") as file:
        names = next(csv.reader(file))
    return len(pl.DataFrame(schema=dict.fromkeys(names, pl.String)).write_csv().encode())


def _settle(descriptor: int) -> None:
    os.fsync(descriptor)


def _move(source: Path, target: Path) -> None:
    os.replace(source, target)
    if sys.platform != "win32":  # so that the name, too, is on disk
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
