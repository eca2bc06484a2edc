"""Retries: what failed for want of something that may come back is tried again, ever more rarely."""

from __future__ import annotations

import errno

from dubio.models.errors import TrialUnavailable
from dubio.models.memory import exhausted
from dubio.serving.repository.registry import Key

# After so many looks it is tried again at the latest.
LONGEST_WAIT = 64
# Of an error of the system that the file is not to blame for: files, memory, space or a disk is wanting.
_PASSING = {errno.EAGAIN, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ESTALE}


class Retries:
    """Counts the looks until a version is due again: 1 after its first failure, then 2, 4 and so on."""

    def __init__(self) -> None:
        self._failures: dict[Key, int] = {}
        self._looks_left: dict[Key, int] = {}

    def failed(self, key: Key, error: BaseException) -> None:
        """Note why a version could not be loaded; for what its file is to blame for, it is not tried again."""
        if not passes(error):
            self.forget(key)
            return
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self._looks_left[key] = min(2**failures, LONGEST_WAIT)

    def due(self, key: Key) -> bool:
        """Tell whether to try now. To be asked at every look."""
        if key not in self._looks_left:
            return False
        self._looks_left[key] -= 1
        return self._looks_left[key] <= 0

    def forget(self, key: Key) -> None:
        """Note that it was loaded, or is gone."""
        self._failures.pop(key, None)
        self._looks_left.pop(key, None)


def passes(error: BaseException) -> bool:
    """Tell whether the same file may well be loaded later."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TrialUnavailable) or (isinstance(cause, OSError) and cause.errno in _PASSING):
            return True
        cause = cause.__cause__
    return exhausted(error) is not None
