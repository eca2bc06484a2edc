"""Archives: the zip files that ``torch.save`` writes, read from one descriptor and strict about their layout.

Readers of zip files disagree about files that are two archives at once. This one takes the layout that torch writes
alone: stored entries that follow one another without a gap from the first byte on, then the directory, then the end.
Nothing is inflated or mapped, and no byte that describes something is read a second time.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dubio.models.errors import UnreadableCheckpoint

if TYPE_CHECKING:  # it takes seconds to import, and a file that is no archive is told without it
    import torch

MISSING = "no such file; train one with `dubio-train fit`."
MAX_ENTRIES = 2**16  # one a tensor; the largest networks have some thousands
MAX_PICKLE = 16 * 2**20  # bytes; a thousand tensors take a tenth of a megabyte
MAX_DIRECTORY = 16 * 2**20

_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_DESCRIPTOR = (
    struct.Struct("<4s3I"),
    struct.Struct("<4sI2Q"),
)  # behind an entry's bytes; the second where 64 bits are needed
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_HAS_DESCRIPTOR, _UTF8 = 0x0008, 0x0800
_LARGE = 2**32 - 1  # stands for a number that is written in an extra field


@dataclass(frozen=True)
class _Entry:
    name: str
    flags: int
    crc: int
    size: int
    header: int  # where its local header is


@dataclass(frozen=True)
class Archive:
    """A checkpoint file, its layout checked.

    Attributes:
        pickled: The description of its content, the entry ``data.pkl``.
        size: Of the file in bytes.
    """

    pickled: bytes
    size: int
    _descriptor: int
    _tensors: dict[str, tuple[int, int, int]]  # where the bytes of an entry are, how many, and their CRC-32

    def storage(self, key: str) -> torch.UntypedStorage:
        """The bytes of the entry ``data/<key>``.

        Raises:
            KeyError: If there is no such entry.
            ValueError: If it is damaged.
        """
        return _storage(self._descriptor, *self._tensors[key])


def check(path: str | Path) -> None:
    """Refuse what is no checkpoint at all, before anything is imported that could read one.

    Raises:
        UnreadableCheckpoint: If there is no such file, or ``torch.save`` did not write it.
    """
    try:
        with opened(path):
            pass
    except FileNotFoundError as error:
        raise UnreadableCheckpoint(path, MISSING) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, UnreadableCheckpoint):
            raise
        raise UnreadableCheckpoint(path, f"cannot be opened: {getattr(error, 'strerror', None) or error}.") from error


@contextmanager
def opened(path: str | Path) -> Iterator[Archive]:
    """Open a checkpoint, for as long as the context lasts.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableCheckpoint: If ``torch.save`` did not write it so, or it is too large for this machine.
    """
    # A pipe of that name would otherwise wait for a writer for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        try:
            archive = _archive(path, descriptor)
        except (OSError, ValueError, struct.error) as error:
            if isinstance(error, UnreadableCheckpoint):
                raise
            raise UnreadableCheckpoint(
                path, f"is not a checkpoint that torch.save wrote, or it is damaged: {error}"
            ) from error
        yield archive
    finally:
        os.close(descriptor)


def _archive(path: str | Path, descriptor: int) -> Archive:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableCheckpoint(path, "is not a plain file, so it is not a checkpoint that torch.save wrote.")
    if status.st_size > largest():
        raise UnreadableCheckpoint(
            path, f"has {status.st_size} bytes, but at most half of this machine's memory is read, {largest()} bytes."
        )
    entries, directory = _directory(path, descriptor, status.st_size)
    placed = _place(descriptor, entries, directory)
    prefix = next(name for name in placed if name.endswith("/data.pkl")).removesuffix("data.pkl")
    at, size, crc = placed[f"{prefix}data.pkl"]
    order = placed.get(f"{prefix}byteorder")
    if order is not None and _bytes(descriptor, *order) != sys.byteorder.encode():
        raise UnreadableCheckpoint(path, f"was not written on a {sys.byteorder}-endian machine, as this one is.")
    tensors = {name.removeprefix(f"{prefix}data/"): place for name, place in placed.items() if "/data/" in name}
    return Archive(_bytes(descriptor, at, size, crc), status.st_size, descriptor, tensors)


def largest() -> int:
    """The most bytes of a file that are read into memory: half of what this machine has."""
    if not hasattr(os, "sysconf"):  # on Windows
        return 2**34  # pragma: no cover
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _directory(path: str | Path, descriptor: int, file_size: int) -> tuple[list[_Entry], int]:
    """The entries by their place in the file, and where the directory begins."""
    end = file_size - _END.size
    tail = max(0, end - _LOCATOR.size - _END64.size)
    found = _read(descriptor, tail, file_size - tail)
    signature, *disks, here, count, size, at, comment = _END.unpack(found[-_END.size :])
    if signature != b"PK\x05\x06" or any(disks) or comment or here != count:
        raise ValueError("it does not end as an archive does")
    before = found[: -_END.size]
    if before[-_LOCATOR.size :][:4] == b"PK\x06\x07":
        end -= _LOCATOR.size + _END64.size
        _, disk, record, disks64 = _LOCATOR.unpack(before[-_LOCATOR.size :])
        fields = _END64.unpack(before[: _END64.size])
        *head, here64, count64, size64, at64 = fields
        short = [min(value, limit) for value, limit in zip(fields[6:], (0xFFFF, 0xFFFF, _LARGE, _LARGE), strict=True)]
        if (head[0], head[1], *head[4:]) != (b"PK\x06\x06", _END64.size - 12, 0, 0) or [here, count, size, at] != short:
            raise ValueError("its two ends disagree")
        if (disk, record, disks64) != (0, end, 1) or here64 != count64:
            raise ValueError("its two ends disagree")
        count, size, at = count64, size64, at64
    if at + size != end or size > MAX_DIRECTORY or count > MAX_ENTRIES:
        raise ValueError("its directory is not where or what it should be")
    return _entries(path, _read(descriptor, at, size), count), at


def _entries(path: str | Path, directory: bytes, count: int) -> list[_Entry]:
    entries, at = [], 0
    for _ in range(count):
        signature, _, _, flags, method, _, _, crc, packed, size, *lengths, disk, _, _, header = _ENTRY.unpack_from(
            directory, at
        )
        at += _ENTRY.size
        name, extra = directory[at : at + lengths[0]], directory[at + lengths[0] : at + lengths[0] + lengths[1]]
        at += sum(lengths)
        if (
            signature != b"PK\x01\x02"
            or lengths[2]
            or disk
            or flags & ~(_HAS_DESCRIPTOR | _UTF8)
            or at > len(directory)
        ):
            raise ValueError("its directory is damaged")
        if method or packed != size:
            raise UnreadableCheckpoint(path, "has compressed entries, which torch.save never writes.")
        size, header = _large(extra, size, header)
        entries.append(_Entry(name.decode(), flags, crc, size, header))
    if at != len(directory):
        raise ValueError("its directory is damaged")
    pickles = [entry for entry in entries if entry.name.endswith("/data.pkl")]
    if len(pickles) != 1 or len({entry.name for entry in entries}) < count:
        raise UnreadableCheckpoint(path, "should hold every entry once, and one of them named data.pkl.")
    if not all(entry.name.startswith(pickles[0].name.removesuffix("data.pkl")) for entry in entries):
        raise ValueError("its entries are in several folders")
    if pickles[0].size > MAX_PICKLE:
        raise UnreadableCheckpoint(
            path, f"describes its content in {pickles[0].size} bytes, but at most {MAX_PICKLE} are allowed."
        )
    return sorted(entries, key=lambda entry: entry.header)


def _large(extra: bytes, size: int, header: int) -> tuple[int, int]:
    """Size and place of an entry, from its extra field where they have more than 32 bits, and only there."""
    if _LARGE not in (size, header):
        return size, header
    kind, length = struct.unpack_from("<2H", extra)
    values = list(struct.unpack(f"<{length // 8}Q", extra[4:]))
    sizes = [values.pop(0) for _ in range(2)] if size == _LARGE else [size, size]
    place = values.pop(0) if header == _LARGE else header
    if kind != 1 or values or sizes[0] != sizes[1] or (size == _LARGE) > (sizes[0] >= _LARGE) or place < header:
        raise ValueError("its directory is damaged")
    return sizes[0], place


def _place(descriptor: int, entries: list[_Entry], end: int) -> dict[str, tuple[int, int, int]]:
    """Where each entry's bytes are, how many, and their CRC-32, if all follow one another without a gap up to an end.

    Raises:
        ValueError: If they do not, or what stands before one is not what the directory says.
    """
    placed, at = {}, 0
    for entry in entries:
        name = entry.name.encode()
        head = _read(descriptor, at, _LOCAL.size + len(name))
        signature, _, flags, method, _, _, crc, packed, size, length, extra = _LOCAL.unpack_from(head)
        alike = (entry.header, b"PK\x03\x04", entry.flags, 0, name) == (
            at,
            signature,
            flags,
            method,
            head[_LOCAL.size :],
        )
        described = bool(flags & _HAS_DESCRIPTOR)
        short = min(entry.size, _LARGE)
        expected = [(entry.crc, short, short), (0, 0, 0), (0, _LARGE, _LARGE)][: 3 if described else 1]
        if not alike or length != len(name) or (crc, packed, size) not in expected:
            raise ValueError(f"its directory and its entry {entry.name[:40]!a} disagree")
        start = at + len(head) + extra
        at = start + entry.size
        if described:
            layout = _DESCRIPTOR[max(entry.size, entry.header) >= _LARGE]
            if _read(descriptor, at, layout.size) != layout.pack(b"PK\x07\x08", entry.crc, entry.size, entry.size):
                raise ValueError(f"its directory and its entry {entry.name[:40]!a} disagree")
            at += layout.size
        placed[entry.name] = start, entry.size, entry.crc
    if at != end:
        raise ValueError("there is something between its entries and its directory")
    return placed


def _bytes(descriptor: int, at: int, size: int, crc: int) -> bytes:
    data = _read(descriptor, at, size)
    if zlib.crc32(data) != crc:
        raise ValueError("its description is damaged")
    return data


def _storage(descriptor: int, at: int, size: int, crc: int) -> torch.UntypedStorage:
    import torch

    held = torch.empty(size, dtype=torch.uint8)
    view, done = memoryview(held.numpy()), 0  # type: ignore[arg-type]
    os.lseek(descriptor, at, os.SEEK_SET)
    with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
        while done < size and (read := file.readinto(view[done:])):  # Linux reads at most 2 GiB at a time
            done += read
    if done < size or zlib.crc32(view) != crc:
        raise ValueError("the bytes of a tensor are damaged")
    return held.untyped_storage()


def _read(descriptor: int, at: int, size: int) -> bytes:
    os.lseek(descriptor, at, os.SEEK_SET)
    data = os.read(descriptor, size)
    if len(data) < size:
        raise ValueError("it is cut short")
    return data
