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
# Enough to go through a folder, be it readable or not.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY


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
        # By the kernel, which follows links that no path replaces, such as /proc/PID/root into another container. A
        # pipe of that name would otherwise wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise UnreadableCheckpoint(path, "no such file; train one with `dubio-train fit`.") from error
    except OSError as error:
        raise UnreadableCheckpoint(path, f"cannot be opened: {error.strerror}.") from error
    reason = _refusal(descriptor, path, root)
    if reason is not None:
        os.close(descriptor)
        raise UnreadableCheckpoint(path, reason)
    return os.fdopen(descriptor, "rb")


def _refusal(descriptor: int, path: Path, root: Path | None) -> str | None:
    """Why an open file must not be read; None if it may."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return "is not a plain file."
    if root is None or _lies_below(root, descriptor, path):
        return None
    if os.fstat(descriptor).st_nlink == 0:
        return "was replaced while it was opened; try again."
    return "leads out of the model repository through a symbolic link; put the file itself there."


def _lies_below(root: Path, descriptor: int, path: Path) -> bool:
    """Tell whether one gets from the root to an open file without a link."""
    try:
        folder = os.open(root, _FOLDER)
    except OSError:  # gone just now
        return False
    try:
        *folders, name = _place(descriptor, path).relative_to(_place(folder, root)).parts
        for part in folders:
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(descriptor))
    except (OSError, ValueError):  # it is elsewhere, or was moved just now
        return False
    finally:
        os.close(folder)


def _place(descriptor: int, path: Path) -> Path:
    """Where an open file lies, as the kernel says; as its path does, where it says nothing."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    except OSError:
        return path.resolve()


@contextmanager
def _anonymous() -> Iterator[tuple[IO[bytes], Path]]:
    """Open a nameless file and a path to it: in memory where the system can, because folders may be read-only."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("dubio-checkpoint"), "w+b") as file:
            yield file, Path(f"/proc/self/fd/{file.fileno()}")
    else:
        with tempfile.NamedTemporaryFile(suffix=".ckpt") as named:
            yield named, Path(named.name)
