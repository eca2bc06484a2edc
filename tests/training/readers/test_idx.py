from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from dubio.training.errors import UnreadableData
from dubio.training.readers import idx

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def encode(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "images-idx3-ubyte"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_reads_what_was_written(path: Path, pack):
    path.write_bytes(pack(encode(IMAGES)))
    assert np.array_equal(idx.read(path, dimensions=3), IMAGES)


def test_reads_labels_and_an_empty_file(path: Path):
    path.write_bytes(encode(np.array([3, 1, 255], dtype=np.uint8)))
    assert idx.read(path, dimensions=1).tolist() == [3, 1, 255]
    path.write_bytes(encode(np.zeros((0, 28, 28), dtype=np.uint8)))
    assert idx.read(path, dimensions=3).shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "magic number 2051.*begins with nothing"),
        (b"\0\0\x08", "magic number 2051"),
        (b"\0\0\x08\x01" + b"\0" * 20, "magic number 2051.*begins with 00 00 08 01"),
        (b"\0\0\x0d\x03" + b"\0" * 20, "magic number 2051"),
        (b"<html>not found</html>", "magic number 2051.*3c 68 74 6d"),
        (encode(IMAGES)[:9], "truncated: the file ends inside its header"),
        (encode(IMAGES)[:-1], "truncated: its header promises 24 values .* but it holds 23"),
        (encode(IMAGES) + b"\0", "trailing bytes after the 24 values"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "at most"),
        (gzip.compress(encode(IMAGES), mtime=0)[:-12], "cannot be read"),
        (gzip.compress(encode(IMAGES), mtime=0) + b"junk", "cannot be read"),
        (b"\x1f\x8b" + b"junk" * 9, "cannot be read"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_by_name(path: Path, content: bytes, message: str):
    path.write_bytes(content)
    with pytest.raises(UnreadableData, match=message) as caught:
        idx.read(path, dimensions=3)
    assert str(path) in str(caught.value)


def test_a_flipped_bit_in_a_gzip_file_is_noticed(path: Path):
    packed = bytearray(gzip.compress(encode(np.zeros((9, 28, 28), dtype=np.uint8))))
    packed[-6] ^= 1  # inside the checksum
    path.write_bytes(packed)
    with pytest.raises(UnreadableData, match="cannot be read"):
        idx.read(path, dimensions=3)


def test_never_unfolds_more_than_the_header_promises(path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda file, size=-1: asked.append(size) or read(file, size))
    path.write_bytes(gzip.compress(encode(IMAGES) + b"\0" * 10_000_000))
    with pytest.raises(UnreadableData, match="trailing bytes"):
        idx.read(path, dimensions=3)
    assert 0 < max(asked) <= IMAGES.size + 1
    assert -1 not in asked


def test_a_file_that_is_not_there_is_named(path: Path):
    with pytest.raises(UnreadableData, match="cannot be read"):
        idx.read(path, dimensions=3)
