"""Files of the library safetensors: tensors by name behind a header of JSON, which cannot hold code."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from dubio.models.checkpoint import archive
from dubio.models.errors import UnreadableCheckpoint

if TYPE_CHECKING:  # it takes seconds to import, and what a file is is told without it
    from torch import Tensor

MAX_HEADER = 100_000_000  # bytes; the library takes no longer one


def is_one(path: str | Path) -> bool:
    """Whether a file begins as these do: the length of the header in 8 bytes, then an object of JSON."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError):  # which is told where it is read; ValueError: a NUL in the name
        return False
    try:
        begin = os.read(descriptor, 9) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)
    return begin[8:] == b"{" and int.from_bytes(begin[:8], "little") <= MAX_HEADER


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors by name, in memory on the CPU.

    Raises:
        UnreadableCheckpoint: If the library is not installed, or the file is damaged or too large for this machine.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise UnreadableCheckpoint(
            path, "is a file of safetensors, a library that is not installed; run `pip install safetensors`."
        ) from error
    size = os.path.getsize(path)
    if size > archive.largest():
        raise UnreadableCheckpoint(
            path, f"has {size} bytes, but at most half of this machine's memory is read, {archive.largest()} bytes."
        )
    try:
        with safe_open(os.fspath(path), framework="pt") as opened:
            # Copies: the library's own are windows into a file that somebody may write to.
            return {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118  # it is no dict
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise UnreadableCheckpoint(path, f"is not a file that safetensors wrote, or it is damaged: {error}") from error
