"""Checkpoint files that no torch would write, for the tests of what reads them."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path


def write(path: Path, *entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive of these entries, as Python writes it."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in entries:
            file.writestr(name, data)
    return path


def described(path: Path, pickled: bytes) -> Path:
    """An archive whose content is described so."""
    return write(path, ("archive/data.pkl", pickled), ("archive/version", b"3\n"))


def text(value: str) -> bytes:
    """The instruction that pushes a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
