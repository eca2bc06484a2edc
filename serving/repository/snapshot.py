"""Private copies of checkpoints: what is verified and loaded is not what somebody may be writing over meanwhile."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dubio.models.errors import UnreadableCheckpoint

_CHUNK = 2**20


@contextmanager
def private_copy(path: Path, root: Path | None, max_bytes: int) -> Iterator[Path]:
    """Copy a file, for as long as the context lasts.

    Args:
        path: Path of the file.
        root: Folder that the path must not lead out of, whatever links there are in it; None if it may lead anywhere.
        max_bytes: Largest file that is copied.

    Raises:
        UnreadableCheckpoint: There is no such file, it leads out of the root, is not a plain file, is too large, or
            changes.
    """
    with _open(path, root) as source, _anonymous() as (copy, name):
        before = os.fstat(source.fileno())
        if before.st_size > max_bytes:
            raise UnreadableCheckpoint(
                path,
                f"has {before.st_size} bytes, but `max_model_bytes` is {max_bytes}; raise it if you know the file.",
            )
        shutil.copyfileobj(source, copy, _CHUNK)
        copy.flush()
        after = os.fstat(source.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or copy.tell() != after.st_size:
            raise UnreadableCheckpoint(path, "is still being written; wait until it is whole.")
        yield name


def _open(path: Path, root: Path | None) -> IO[bytes]:
    try:
        real = path.resolve(strict=True)
        if root is not None and not real.is_relative_to(root.resolve(strict=True)):
            raise UnreadableCheckpoint(
                path, "leads out of the model repository through a symbolic link; put the file itself there."
            )
        # A pipe of that name would otherwise wait for a writer for ever.
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise UnreadableCheckpoint(path, "no such file; train one with `dubio-train fit`.") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise UnreadableCheckpoint(path, f"cannot be opened: {getattr(error, 'strerror', None) or error}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableCheckpoint(path, "is not a plain file.")
    return os.fdopen(descriptor, "rb")


@contextmanager
def _anonymous() -> Iterator[tuple[IO[bytes], Path]]:
    """Open a nameless file and a path to it: in memory where the system can, because folders may be read-only."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("dubio-checkpoint"), "w+b") as file:
            yield file, Path(f"/proc/self/fd/{file.fileno()}")
    else:
        with tempfile.NamedTemporaryFile(suffix=".ckpt") as named:
            yield named, Path(named.name)
