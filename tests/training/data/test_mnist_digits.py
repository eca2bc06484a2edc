from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from training import MNIST
from training.data import mnist_digits
from training.data.splits import SPLITS
from training.errors import DataUnavailable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for prefix in ("train", "t10k"):
        labels = (np.arange(200) % 10).astype(np.uint8)
        pixels = np.random.default_rng(0).integers(0, 256, (200, 28, 28), dtype=np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            (tmp_path / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return tmp_path


def test_the_official_test_images_are_the_test_split(root: Path):
    data = MNIST(root=str(root), validation=30, select=30, calibration=40)
    assert [len(data.splits[name].x) for name in SPLITS] == [100, 30, 30, 40, 200]
    assert data.input.shape == (1, 28, 28)
    assert data.classes == tuple("0123456789")


def test_missing_files_are_told_with_the_cure(tmp_path: Path):
    with pytest.raises(DataUnavailable, match=r"MNIST was not found in .*download: true"):
        MNIST(root=str(tmp_path)).setup()


def test_the_checksums_are_of_the_published_archives(root: Path):
    """A gzip file whose content is the published one, but which somebody packed again, has another checksum."""
    assert set(mnist_digits.CHECKSUMS) == {path.name for path in root.iterdir()}
    assert len({*mnist_digits.CHECKSUMS.values()}) == 4
    assert all(
        len(bytes.fromhex(checksum)) == hashlib.sha256().digest_size for checksum in mnist_digits.CHECKSUMS.values()
    )
