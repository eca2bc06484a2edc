from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from dubio.models.checkpoint import archive, file
from dubio.models.errors import UnreadableCheckpoint
from tests.models.checkpoint.archives import text, write

PLAIN = b"\x80\x02}."
TENSOR = (
    b"\x80\x02}" + text("a") + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nByteStorage\n"
    + text("0") + text("cpu") + b"K\x04tQK\x00K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs."
)  # fmt: skip


@pytest.fixture
def written(tmp_path: Path) -> Path:
    torch.save({"a": torch.arange(4.0), "b": torch.zeros(0)}, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


def _change(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


def test_a_missing_file_is_just_missing(tmp_path: Path):
    with pytest.raises(FileNotFoundError), archive.opened(tmp_path / "model.ckpt"):
        pass


@pytest.mark.parametrize("data", [b"", b"hello\n", b"\x80\x02}.", b"PK\x03\x04", bytes(range(256)) * 4])
def test_what_is_no_archive_is_refused(data: bytes, tmp_path: Path):
    (tmp_path / "model.ckpt").write_bytes(data)
    with pytest.raises(
        UnreadableCheckpoint, match=r"model\.ckpt: is not a checkpoint that torch\.save wrote, or it is damaged"
    ):
        file.read_content(tmp_path / "model.ckpt")


def test_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(UnreadableCheckpoint, match="not a checkpoint that torch"):
        file.read_content(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with named pipes")
def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path):
    os.mkfifo(tmp_path / "model.ckpt")
    with pytest.raises(UnreadableCheckpoint, match="is not a plain file"):
        file.read_content(tmp_path / "model.ckpt")


def test_a_sparse_file_larger_than_memory_is_refused_before_it_is_read(tmp_path: Path):
    with (tmp_path / "model.ckpt").open("wb") as sparse:
        sparse.truncate(archive.largest() + 1)
    before = psutil.Process().memory_info().rss
    with pytest.raises(UnreadableCheckpoint, match="at most half of this machine's memory is read"):
        file.read_content(tmp_path / "model.ckpt")
    assert psutil.Process().memory_info().rss - before < 20 * 2**20


def test_a_compressed_bomb_is_refused_without_inflating_it(tmp_path: Path):
    size = 100 * 2**20
    bomb = b"\x80\x02X" + struct.pack("<I", size) + b"a" * size + b"."
    path = write(tmp_path / "model.ckpt", ("archive/data.pkl", bomb), compression=zipfile.ZIP_DEFLATED)
    del bomb
    assert path.stat().st_size < 2**20
    before = psutil.Process().memory_info().rss
    with pytest.raises(UnreadableCheckpoint, match="compressed entries"):
        file.read_content(path)
    assert psutil.Process().memory_info().rss - before < 20 * 2**20


def test_a_description_without_end_is_refused(tmp_path: Path):
    path = write(tmp_path / "model.ckpt", ("archive/data.pkl", b"\x80\x02" + b"]0" * (archive.MAX_PICKLE // 2)))
    with pytest.raises(UnreadableCheckpoint, match=f"at most {archive.MAX_PICKLE} are allowed"):
        file.read_content(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [
        ["archive/data.pkl"] * 2,
        ["archive/data.pkl", "archive/data/0", "archive/data/0"],
        ["archive/data.pkl", "other/data.pkl"],
        ["archive/code.py"],
        [],
    ],
    ids=["twice", "another twice", "two folders", "none", "empty"],
)
def test_there_is_one_description_and_no_entry_twice(names: list[str], tmp_path: Path):
    path = write(tmp_path / "model.ckpt", *[(name, PLAIN) for name in names])
    with pytest.raises(UnreadableCheckpoint, match=r"every entry once, and one of them named data\.pkl"):
        file.read_content(path)


def test_entries_of_another_folder_are_refused(tmp_path: Path):
    path = write(tmp_path / "model.ckpt", ("archive/data.pkl", PLAIN), ("other/data/0", b"1234"))
    with pytest.raises(UnreadableCheckpoint, match="in several folders"):
        file.read_content(path)


@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/data/0"])
def test_a_stored_entry_whose_sizes_differ_is_refused(name: str, tmp_path: Path):
    path = write(tmp_path / "model.ckpt", ("archive/data.pkl", PLAIN), ("archive/data/0", b"1234"))
    assert file.read_content(path) == {}
    data = bytearray(path.read_bytes())
    entry = data.index(name.encode(), data.index(b"PK\x01\x02")) - 46  # of the central directory
    (size,) = struct.unpack_from("<I", data, entry + 24)
    struct.pack_into("<I", data, entry + 24, size + 2**30)
    path.write_bytes(data)
    with pytest.raises(UnreadableCheckpoint, match="compressed entries"):
        file.read_content(path)


def test_an_archive_of_two_directories_is_refused(written: Path, tmp_path: Path):
    """Python finds a directory from the end of the file, torch by the number that the end holds."""
    buffer = io.BytesIO()
    torch.save({"other": torch.zeros(1)}, buffer)
    for data in (
        buffer.getvalue() + written.read_bytes(),  # the numbers of the second point into the first
        written.read_bytes() + buffer.getvalue(),
        b"MZ" + written.read_bytes(),
        written.read_bytes() + b"\n",
    ):
        (tmp_path / "both.ckpt").write_bytes(data)
        with pytest.raises(UnreadableCheckpoint, match="or it is damaged"):
            file.read_content(tmp_path / "both.ckpt")


def _first(data: bytes, signature: bytes, at: int, new: bytes) -> bytes:
    begin = data.index(signature) + at
    return data[:begin] + new + data[begin + len(new) :]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda data: data[:-2] + b"\x01\x00" + b"!", "it does not end"),  # a comment
        (lambda data: data[:-2] + b"\x01\x00", "it does not end"),
        (lambda data: _first(data, b"PK\x05\x06", 8, b"\x01"), "it does not end"),
        (lambda data: _first(data, b"PK\x05\x06", 8, b"\x01\x00\x01\x00"), "two ends disagree"),
        (lambda data: _first(data, b"PK\x06\x07", 8, b"\x00"), "two ends disagree"),
        (lambda data: _first(data, b"PK\x06\x06", 0, b"PK\x06\x05"), "two ends disagree"),
        (lambda data: _first(data, b"PK\x06\x06", 24, b"\x01"), "two ends disagree"),
        (lambda data: data[:-22] + data[-22:-10] + b"\xff" + data[-9:], "two ends disagree"),
        (lambda data: data.replace(b"PK\x06\x07", b"PK\x00\x00"), "its directory is not where"),
        (lambda data: _first(data, b"PK\x01\x02", 0, b"PK\x00\x00"), "its directory is damaged"),
        (lambda data: _first(data, b"PK\x01\x02", 8, b"\x01"), "its directory is damaged"),  # encrypted
        (lambda data: _first(data, b"PK\x01\x02", 30, b"\x04"), "its directory is damaged|disagree|cut short|folders"),
        (lambda data: _first(data, b"PK\x01\x02", 20, b"\xff" * 8), "damaged"),  # large, and does not say how large
        (lambda data: _first(data, b"PK\x01\x02", 20, b"\0\0\0\x01" * 2), "is cut short"),
        (lambda data: _first(data, b"PK\x01\x02", 42, b"\x01"), "disagree"),
        (lambda data: _first(data, b"PK\x03\x04", 30, b"X"), "disagree"),
        (lambda data: _first(data, b"PK\x03\x04", 14, b"\x01"), "disagree"),
        (lambda data: _first(data, b"PK\x07\x08", 4, b"\x00\x00\x00\x00"), "disagree"),
        (lambda data: data.replace(b"little", b"biggie"), "description is damaged"),
        (lambda data: _first(data, b"\x80\x02}", 2, b"]"), "description is damaged"),
        (lambda data: data.replace(torch.arange(4.0).numpy().tobytes(), b"\x01" * 16), "bytes of a tensor are damaged"),
    ],
)
def test_an_archive_that_is_laid_out_otherwise_is_refused(change: Callable[[bytes], bytes], rule: str, written: Path):
    assert torch.equal(file.read_content(written)["a"], torch.arange(4.0))
    before = written.read_bytes()
    assert _change(written, change).read_bytes() != before
    with pytest.raises(UnreadableCheckpoint, match=rf"model\.ckpt: .*({rule})") as caught:
        file.read_content(written)
    assert str(caught.value).isprintable()


def test_a_gap_between_the_entries_and_the_directory_is_refused(tmp_path: Path):
    path = write(tmp_path / "model.ckpt", ("archive/data.pkl", PLAIN))
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02")
    moved = data[:at] + b"hidden" + data[at:-6] + struct.pack("<I", at + 6) + data[-2:]
    path.write_bytes(moved)
    with pytest.raises(UnreadableCheckpoint, match="something between its entries and its directory"):
        file.read_content(path)


def test_a_directory_with_something_behind_its_entries_is_refused(tmp_path: Path):
    path = write(tmp_path / "model.ckpt", ("archive/data.pkl", PLAIN))
    data = path.read_bytes()
    (size,) = struct.unpack_from("<I", data, len(data) - 10)
    path.write_bytes(data[:-22] + b"hidden" + data[-22:-10] + struct.pack("<I", size + 6) + data[-6:])
    with pytest.raises(UnreadableCheckpoint, match="its directory is damaged"):
        file.read_content(path)


def test_the_bytes_of_another_machine_are_refused(tmp_path: Path):
    other = {"little": b"big", "big": b"little"}[sys.byteorder]
    path = write(tmp_path / "model.ckpt", ("archive/data.pkl", PLAIN), ("archive/byteorder", other))
    with pytest.raises(UnreadableCheckpoint, match=f"was not written on a {sys.byteorder}-endian machine"):
        file.read_content(path)


def test_a_tensor_that_the_file_does_not_have_is_refused(tmp_path: Path):
    path = write(tmp_path / "model.ckpt", ("archive/data.pkl", TENSOR), ("archive/data/0", b"abcd"))
    assert file.read_content(path)["a"].tolist() == list(b"abcd")
    path = write(tmp_path / "model.ckpt", ("archive/data.pkl", TENSOR), ("archive/data/1", b"abcd"))
    with pytest.raises(UnreadableCheckpoint, match="it is damaged: '0'"):
        file.read_content(path)


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(written: Path):
    """A mapped file would end the process."""
    with archive.opened(written) as opened:
        os.truncate(written, 64)
        with pytest.raises(ValueError, match="bytes of a tensor are damaged"):
            opened.storage("0")


@pytest.mark.parametrize(
    ("extra", "size", "header", "expected"),
    [
        (struct.pack("<2H2Q", 1, 16, 2**33, 2**33), 2**32 - 1, 5, (2**33, 5)),
        (struct.pack("<2HQ", 1, 8, 2**33), 7, 2**32 - 1, (7, 2**33)),
        (struct.pack("<2H3Q", 1, 24, 2**33, 2**33, 2**34), 2**32 - 1, 2**32 - 1, (2**33, 2**34)),
        (b"", 7, 5, (7, 5)),
        (struct.pack("<2H2Q", 1, 16, 7, 7), 2**32 - 1, 5, None),
        (struct.pack("<2H2Q", 1, 16, 2**33, 2**34), 2**32 - 1, 5, None),
        (struct.pack("<2H2Q", 2, 16, 2**33, 2**33), 2**32 - 1, 5, None),
        (struct.pack("<2H3Q", 1, 24, 2**33, 2**33, 5), 2**32 - 1, 5, None),
        (struct.pack("<2HQ", 1, 8, 5), 7, 2**32 - 1, None),
    ],
)
def test_numbers_of_64_bits_are_read_only_where_32_are_too_few(
    extra: bytes, size: int, header: int, expected: tuple[int, int] | None
):
    if expected is None:
        with pytest.raises(ValueError, match="its directory is damaged"):
            archive._large(extra, size, header)
    else:
        assert archive._large(extra, size, header) == expected


def test_a_file_of_more_than_four_gigabytes_is_read(tmp_path: Path):
    """Laid out as torch does; the bytes of its tensor are a hole, and are not asked for."""
    size, crc = 2**32 + 8, zlib.crc32(PLAIN)
    names = [b"m/data/0", b"m/data.pkl"]
    head, entry = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I")
    with (tmp_path / "model.ckpt").open("wb") as file_:
        file_.write(head.pack(b"PK\x03\x04", 0, 8, 0, 0, 0, 0, 0, 0, len(names[0]), 20) + names[0])
        file_.write(struct.pack("<2H2Q", 1, 16, size, 0))
        file_.seek(size, os.SEEK_CUR)
        file_.write(struct.pack("<4sI2Q", b"PK\x07\x08", 7, size, size))
        second = file_.tell()
        file_.write(head.pack(b"PK\x03\x04", 0, 8, 0, 0, 0, 0, 0, 0, len(names[1]), 0) + names[1] + PLAIN)
        file_.write(struct.pack("<4sI2Q", b"PK\x07\x08", crc, len(PLAIN), len(PLAIN)))
        at, large = file_.tell(), 2**32 - 1
        file_.write(entry.pack(b"PK\x01\x02", 0, 0, 8, 0, 0, 0, 7, large, large, 8, 20, 0, 0, 0, 0, 0) + names[0])
        file_.write(struct.pack("<2H2Q", 1, 16, size, size))
        file_.write(
            entry.pack(b"PK\x01\x02", 0, 0, 8, 0, 0, 0, crc, len(PLAIN), len(PLAIN), 10, 12, 0, 0, 0, 0, large)
            + names[1]
        )
        file_.write(struct.pack("<2HQ", 1, 8, second))
        end = file_.tell()
        file_.write(struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 0, 0, 0, 0, 2, 2, end - at, at))
        file_.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1))
        file_.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 2, 2, end - at, large, 0))
    if archive.largest() > 2**33:
        assert file.read_content(tmp_path / "model.ckpt") == {}
    with zipfile.ZipFile(tmp_path / "model.ckpt") as reader:  # which agrees
        assert reader.read("m/data.pkl") == PLAIN


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("none.ckpt", "no such file; train one"),
        ("a\0b.ckpt", "cannot be opened: embedded null"),
        (".", "is not a plain file"),
    ],
)
def test_what_is_no_checkpoint_at_all_is_refused(name: str, complaint: str, tmp_path: Path):
    with pytest.raises(UnreadableCheckpoint, match=complaint):
        archive.check(f"{tmp_path}/{name}")
