"""Memory that ran out: told apart from everything else that may go wrong."""

from __future__ import annotations

import errno

import torch

# What torch, and oneDNN in it, say where they raise no type of their own.
_SAID = (
    *("can't allocate memory", "not enough memory", "cannot allocate memory", "out of memory"),
    *("defaultcpuallocator", "_status_alloc_failed", "bad_alloc"),
    *("could not create a primitive", "could not create a memory"),
)


def exhausted(error: BaseException) -> BaseException | None:
    """Give the error that says so, this one or one that led to it; None where memory is not the cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError | torch.OutOfMemoryError):
            return cause
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return cause
        if isinstance(cause, RuntimeError) and any(said in str(cause).lower() for said in _SAID):
            return cause
        cause = cause.__cause__
    return None
