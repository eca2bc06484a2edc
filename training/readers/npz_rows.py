"""Some rows of an array in an .npz file, without the others in memory."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

BLOCK = 2**22  # bytes that are read at a time


def read_rows(path: Path, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The rows of these numbers, which rise.

    Args:
        path: Of the file.
        name: Of the array.
        rows: Numbers along its first axis.

    Raises:
        ValueError: If the array holds Python objects, or the file is damaged.
    """
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        shape, column_major, dtype = _header(stream)
        if dtype.hasobject:
            raise ValueError("it holds Python objects (pickles)")
        if column_major:  # its rows lie scattered over the file
            whole: npt.NDArray[Any] = np.frombuffer(stream.read(), dtype).reshape(shape, order="F")
            return np.ascontiguousarray(whole[rows])
        found = np.empty((len(rows), *shape[1:]), dtype)
        size = dtype.itemsize * math.prod(shape[1:])
        step = max(1, BLOCK // max(size, 1))
        done = 0
        for first in range(0, shape[0], step):
            count = min(step, shape[0] - first)
            block = np.frombuffer(stream.read(count * size), dtype).reshape(count, *shape[1:])
            wanted = rows[done : np.searchsorted(rows, first + count)]
            found[done : done + len(wanted)] = block[wanted - first]
            done += len(wanted)
        return found


def shape_of(path: Path, name: str) -> tuple[int, ...]:
    """The shape of an array, without reading it.

    Raises:
        ValueError: If the file is damaged.
    """
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        return _header(stream)[0]


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, column_major, dtype = read(stream)
    return shape, column_major, dtype
