from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dubio.training import MNIST, FashionMNIST
from dubio.training.data.mnist import MNISTFiles
from dubio.training.errors import DataUnavailable, TrainingError, UnreadableData
from dubio.training.splits.random_splits import SPLITS


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_each_data_set_says_where_its_files_are(kind: type[MNISTFiles], tmp_path: Path):
    assert kind(root=str(tmp_path)).cache == tmp_path
    assert kind().cache.name == kind.folder_name
    assert kind().source == kind.published
    assert kind(source="http://127.0.0.1/").source == "http://127.0.0.1/"
    assert len(kind.names) == 10


def test_a_data_set_without_a_package_names_none(tmp_path: Path):
    with pytest.raises(DataUnavailable) as caught:
        MNIST(root=str(tmp_path)).setup()
    assert "apt" not in str(caught.value)


SMALL = {"validation": 30, "select": 30, "calibration": 40}
# When the authors packed each file; Debian packs them without name and time.
PACKED = {"train": 1504176606, "t10k": 1504176627}


def encode(array: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def write(folder: Path, prefix: str, images: np.ndarray, labels: np.ndarray, pack: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        content = encode(array)
        name = f"{prefix}-{kind}" + (".gz" if pack else "")
        (folder / name).write_bytes(gzip.compress(content, mtime=0) if pack else content)


@pytest.fixture
def images() -> np.ndarray:
    """Twenty images a class; the first two pixels hold the row number."""
    pixels = np.random.default_rng(0).integers(0, 256, (200, 28, 28))
    pixels[:, 0, 0], pixels[:, 0, 1] = np.divmod(np.arange(200), 256)
    return pixels


@pytest.fixture
def root(tmp_path: Path, images: np.ndarray) -> Path:
    folder = tmp_path / "fashion"
    write(folder, "train", images, np.arange(200) % 10)
    write(folder, "t10k", images[:50] // 2, np.arange(50) % 10)
    return folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A web server of a folder: its address, and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/", folder
        running.shutdown()
        thread.join()


@pytest.fixture
def published(server: tuple[str, Path], root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """The small data set on the server, with its checksums in place of the real ones."""
    address, folder = server
    for name in FashionMNIST.checksums:
        content = (root / name).read_bytes()
        (folder / name).write_bytes(content)
        monkeypatch.setitem(FashionMNIST.checksums, name, hashlib.sha256(content).hexdigest())
    return address, folder


@pytest.mark.parametrize("pack", [True, False], ids=["gzip", "plain"])
def test_the_official_test_images_are_the_test_split(tmp_path: Path, images: np.ndarray, pack: bool):
    write(tmp_path, "train", images, np.arange(200) % 10, pack)
    write(tmp_path, "t10k", images[:50] // 2, np.arange(50) % 10, pack)
    data = FashionMNIST(root=str(tmp_path), **SMALL)
    x, labels = data.raw("test")
    assert np.array_equal(x.numpy()[:, 0], images[:50] // 2)
    assert labels.tolist() == [row % 10 for row in range(50)]


def test_the_training_images_become_the_other_four_splits(root: Path, images: np.ndarray):
    data = FashionMNIST(root=str(root), **SMALL)
    sizes = {name: len(rows.labels) for name, rows in data.splits.items()}
    assert sizes == {"train": 100, **SMALL, "test": 50}
    pool = np.concatenate([data.splits[name].x for name in ("train", *SMALL)])[:, 0]
    numbers = pool[:, 0, 0].astype(int) * 256 + pool[:, 0, 1]
    assert sorted(numbers) == list(range(200))
    assert np.array_equal(pool, images[numbers])


def test_the_input_is_described_as_a_user_has_it(root: Path):
    data = FashionMNIST(root=str(root), **SMALL)
    assert data.input.shape == (1, 28, 28)
    assert data.input.low == 0.0
    assert data.input.high == 255.0
    assert len(data.classes) == 10


def test_missing_files_are_an_error_that_tells_the_three_cures(tmp_path: Path):
    with pytest.raises(DataUnavailable) as caught:
        FashionMNIST(root=str(tmp_path)).setup()
    message = str(caught.value)
    assert all(cure in message for cure in ("init_args.root", "apt install dataset-fashion-mnist", "download: true"))
    assert str(tmp_path) in message


def test_one_missing_file_is_missing_files(root: Path):
    (root / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataUnavailable):
        FashionMNIST(root=str(root), **SMALL).setup()


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((50, 28, 28), np.zeros(49), "t10k-labels.*expected 50 labels.* but got 49"),
        ((50, 28, 28), np.full(50, 10), "t10k-labels.*from 0 to 9, but got 10"),
        ((50, 8, 8), np.zeros(50), "t10k-images.*28 x 28 pixels"),
    ],
)
def test_files_that_do_not_belong_together_are_refused_by_name(root: Path, shape, labels, message: str):
    write(root, "t10k", np.zeros(shape), labels)
    with pytest.raises(UnreadableData, match=message):
        FashionMNIST(root=str(root), **SMALL).setup()


def test_splits_that_leave_nothing_to_train_on_are_refused(root: Path):
    with pytest.raises(TrainingError, match="leave images for training, but they take 5200 of 200"):
        FashionMNIST(root=str(root), validation=5000, select=100, calibration=100).setup()


def test_a_download_is_verified_kept_and_used_again(published: tuple[str, Path], tmp_path: Path):
    address, folder = published
    target = tmp_path / "target"
    first = FashionMNIST(root=str(target), download=True, source=address, **SMALL)
    assert len(first.raw("test")[0]) == 50
    for name in FashionMNIST.checksums:
        (folder / name).unlink()  # a second run asks the server for nothing
    again = FashionMNIST(root=str(target), download=True, source=address, **SMALL)
    assert np.array_equal(again.raw("test")[0], first.raw("test")[0])


def test_nothing_is_downloaded_without_leave(published: tuple[str, Path], tmp_path: Path):
    with pytest.raises(DataUnavailable, match="download: true"):
        FashionMNIST(root=str(tmp_path / "target"), source=published[0], **SMALL).setup()


def test_a_file_with_another_checksum_is_refused_and_not_kept(published: tuple[str, Path], tmp_path: Path):
    address, folder = published
    name = "t10k-labels-idx1-ubyte.gz"
    (folder / name).write_bytes(gzip.compress(b"something else"))
    target = tmp_path / "target"
    with pytest.raises(DataUnavailable, match=name):
        FashionMNIST(root=str(target), download=True, source=address, **SMALL).setup()
    assert not (target / name).exists()


def test_a_server_that_has_no_such_file_is_a_clear_error(server: tuple[str, Path], tmp_path: Path):
    with pytest.raises(DataUnavailable, match=r"could not be downloaded.*404.*target/train-images-idx3-ubyte\.gz"):
        FashionMNIST(root=str(tmp_path / "target"), download=True, source=server[0]).setup()


def test_the_checksums_are_those_of_the_published_files():
    """Debian's files differ from the published ones in the gzip header alone, so these can be made from them."""
    folder = FashionMNIST.debian
    if not folder.is_dir():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    for name, checksum in FashionMNIST.checksums.items():
        packed_at = struct.pack("<I", PACKED[name.split("-")[0]])
        header = b"\x1f\x8b\x08\x08" + packed_at + b"\0\x03" + name.removesuffix(".gz").encode() + b"\0"
        content = header + (folder / name).read_bytes()[10:]
        assert hashlib.sha256(content).hexdigest() == checksum


def test_debians_files_are_found_without_a_root():
    if not FashionMNIST.debian.is_dir():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    data = FashionMNIST()
    splits = data.read().splits
    assert {name: len(rows.labels) for name, rows in splits.items()} == {
        "train": 45000,
        "validation": 5000,
        "select": 5000,
        "calibration": 5000,
        "test": 10000,
    }
    assert np.bincount(splits["calibration"].labels).tolist() == [500] * 10


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    for prefix in ("train", "t10k"):
        labels = (np.arange(200) % 10).astype(np.uint8)
        pixels = np.random.default_rng(0).integers(0, 256, (200, 28, 28), dtype=np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            (tmp_path / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return tmp_path


def test_the_official_digits_are_the_test_split(digits: Path):
    data = MNIST(root=str(digits), validation=30, select=30, calibration=40)
    assert [len(data.splits[name].x) for name in SPLITS] == [100, 30, 30, 40, 200]
    assert data.input.shape == (1, 28, 28)
    assert data.classes == tuple("0123456789")


def test_missing_files_are_told_with_the_cure(tmp_path: Path):
    with pytest.raises(DataUnavailable, match=r"MNIST was not found in .*download: true"):
        MNIST(root=str(tmp_path)).setup()


def test_the_checksums_are_of_the_published_archives(digits: Path):
    """A gzip file whose content is the published one, but which somebody packed again, has another checksum."""
    assert set(MNIST.checksums) == {path.name for path in digits.iterdir()}
    assert len({*MNIST.checksums.values()}) == 4
    assert all(len(bytes.fromhex(checksum)) == hashlib.sha256().digest_size for checksum in MNIST.checksums.values())
