"""A folder of image files as a source, each of them a row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.models.inputs.image import is_image
from dubio.scale.encode import FILES
from dubio.scale.readers.rows import Reading, Rows, Span, objects, texts

FILE = "file"  # the column that says which is which
MOST_BYTES = 2**26  # of files that are read at a time


class ImageFolder:
    """The images in a folder and in all folders inside it, in the order of their paths.

    A file that is called like an image of a format that is not read is a row that cannot be.

    Args:
        path: The folder.
        spec: What the model takes.
        reading: How the folder is read.

    Raises:
        InvalidInput: If the model takes no image files, or there are none.
    """

    def __init__(self, path: Path, spec: InputSpec, reading: Reading) -> None:
        if spec.no_files is not None:
            raise InvalidInput(f"Expected a model that takes image files for a folder, but {spec.no_files}.")
        for name in (*reading.ids, *reading.ignore):
            raise InvalidInput(f"Expected no --ids and --ignore for a folder, whose rows are files, but got {name!r}.")
        self.path = path
        self.files = sorted(_images(path))
        if not self.files:
            raise InvalidInput("Expected image files, but there are none.")

    def stamp(self) -> str:
        """Which files there are, and the size and time of each."""
        digest = hashlib.sha256()
        for name in self.files:
            about = os.stat(self.path / name)
            digest.update(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\0".encode(errors="surrogateescape"))
        return f"{len(self.files)} files, {digest.hexdigest()}"

    def spans(self, rows: int) -> Iterator[Span]:
        for first in range(0, len(self.files), rows):
            yield Span(first, min(rows, len(self.files) - first))

    def read(self, span: Span, most: int) -> Iterator[Rows]:
        held: list[bytes | None] = []
        errors: list[str | None] = []
        first = span.first
        for index in range(span.first, span.first + span.rows):
            try:
                held.append((self.path / self.files[index]).read_bytes())
                errors.append(None)
            except OSError as error:
                held.append(None)
                errors.append(f"cannot be read: {error.strerror}.")
            full = len(held) == most or sum(map(len, filter(None, held))) > MOST_BYTES
            if full or index == span.first + span.rows - 1:
                ids = {FILE: [_printable(name) for name in self.files[first : first + len(held)]]}
                yield Rows(first, {FILES: objects(list(held))}, texts(ids), errors)
                first, held, errors = index + 1, [], []


def _images(path: Path) -> Iterator[str]:
    """Their paths inside the folder; links are followed, but not back."""
    seen = set()
    for home, folders, names in os.walk(path, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if os.path.realpath(home) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(home))
        for name in names:
            if is_image(Path(name)):
                yield (Path(home, name).relative_to(path)).as_posix()


def _printable(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="replace")
