"""Reader for IDX, the file format of MNIST and its relatives.

An IDX file is two zero bytes, a type code (8 = unsigned byte), the number of dimensions, one big-endian
32-bit size a dimension, and then the values, row by row.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from dubio.training.errors import UnreadableData

_UNSIGNED_BYTE = 8
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_VALUES = 1 << 32


def read(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Reads unsigned bytes from an IDX file, gzipped or plain.

    Args:
        path: The file; whether it is gzipped is read from its first bytes, not from its name.
        dimensions: How many axes the array must have: 3 for images, 1 for labels.

    Returns:
        The values, in the shape that the file states.

    Raises:
        UnreadableData: If the file is damaged, truncated, too long, or of another format.
    """
    try:
        with _open(path) as file:
            return _parse(file, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableData(f"{path}: cannot be read: {error}.") from error


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP_MAGIC
    return cast("IO[bytes]", gzip.open(path)) if zipped else path.open("rb")


def _parse(file: IO[bytes], path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    magic, wanted = file.read(4), bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if magic != wanted:
        raise UnreadableData(
            f"{path}: expected the IDX magic number {int.from_bytes(wanted, 'big')} (unsigned bytes, axes: "
            f"{dimensions}), but the file begins with {magic.hex(' ') or 'nothing'}."
        )
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise UnreadableData(f"{path}: truncated: the file ends inside its header.")
    shape = tuple(int.from_bytes(sizes[at : at + 4], "big") for at in range(0, len(sizes), 4))
    expected = math.prod(shape)
    if expected > _MAX_VALUES:
        raise UnreadableData(f"{path}: its header promises {expected} values; at most {_MAX_VALUES} are read.")
    # Never more than was promised: a small gzip file can unfold to any size.
    content = file.read(expected + 1)
    if len(content) < expected:
        raise UnreadableData(
            f"{path}: truncated: its header promises {expected} values (shape {shape}), but it holds {len(content)}."
        )
    if len(content) > expected:
        raise UnreadableData(
            f"{path}: trailing bytes after the {expected} values that its header promises (shape {shape})."
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
