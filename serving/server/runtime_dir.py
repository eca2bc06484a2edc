"""The temporary directory that a supervisor and its workers share. Whoever uses it holds a lock on a file in it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR

_PREFIX = "dubio-"
_LOCK = "lock"


@contextmanager
def runtime_dir() -> Iterator[Path]:
    """Make a directory, which goes with the context; those that killed services left behind go first."""
    _sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        folder = Path(name)
        new = folder / f"{_LOCK}.new"
        new.touch(mode=0o600)
        descriptor = _lock(new, fcntl.LOCK_SH)
        # Under its own name only now: whoever sweeps never finds a lock file that nobody holds yet.
        new.rename(folder / _LOCK)
        try:
            yield folder
        finally:
            os.close(descriptor)


def hold(folder: Path) -> None:
    """Keep a runtime directory from being swept until this process ends."""
    _lock(folder / _LOCK, fcntl.LOCK_SH)


def _lock(path: Path, operation: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(parent: Path) -> None:
    """Remove directories of this user's services of which no process is left."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            status = folder.lstat()
            if not S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            descriptor = _lock(folder / _LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # in use, going just now, or none of ours
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)
