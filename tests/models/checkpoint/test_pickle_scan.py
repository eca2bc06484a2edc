from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from dubio.models.checkpoint import pickle_scan
from dubio.models.errors import UnreadableCheckpoint


def _zip(path: Path, *entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in entries:
            file.writestr(name, data)
    return path


def _pickle(*calls: str) -> bytes:
    """A pickle that builds a dict after naming each `module name`."""
    return b"\x80\x02" + b"".join(b"c" + call.replace(" ", "\n").encode() + b"\n0" for call in calls) + b"}."


def test_what_torch_writes_passes(tmp_path: Path):
    content: dict[str, Any] = {
        "state_dict": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "types": [torch.zeros(2, dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.int8, torch.bool)],
        "rest": [1, 2**40, 0.5, "text", None, True, (1,), {2}, 1j, torch.Size([1]), torch.float32, torch.device("cpu")],
    }
    torch.save(content, tmp_path / "model.ckpt")
    pickle_scan.check(tmp_path / "model.ckpt")


def test_a_missing_file_is_just_missing(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        pickle_scan.check(tmp_path / "model.ckpt")


@pytest.mark.parametrize("data", [b"", b"hello\n", b"\x80\x02}.", b"PK\x03\x04", bytes(range(256)) * 4])
def test_what_is_no_archive_is_refused(data: bytes, tmp_path: Path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(data)
    with pytest.raises(
        UnreadableCheckpoint, match=r"model\.ckpt: is not a checkpoint that torch\.save wrote, or it is damaged"
    ):
        pickle_scan.check(path)


def test_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(UnreadableCheckpoint, match="not a checkpoint that torch"):
        pickle_scan.check(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "os system",
        "posix system",
        "builtins eval",
        "__builtin__ eval",
        "builtins bytearray",
        "__builtin__ bytearray",
        "_codecs encode",
        "torch FloatTensor",
        "torch.storage UntypedStorage",
        "torch._utils _rebuild_sparse_tensor",
        "torch._utils _rebuild_meta_tensor_no_storage",
        "torch._utils _rebuild_wrapper_subclass",
        "torch._tensor _rebuild_from_type_v2",
        "numpy._core.multiarray scalar",
        "collections OrderedDict.fromkeys",
    ],
)
def test_any_name_beyond_plain_data_and_dense_tensors_is_refused(name: str, tmp_path: Path):
    path = _zip(tmp_path / "model.ckpt", ("archive/data.pkl", _pickle("collections OrderedDict", name)))
    with pytest.raises(UnreadableCheckpoint, match=rf"names `{name.replace(' ', '.')}`.*nothing was run"):
        pickle_scan.check(path)


def test_control_characters_in_a_name_do_not_reach_the_message(tmp_path: Path):
    path = _zip(tmp_path / "model.ckpt", ("archive/data.pkl", _pickle("os \x1b[31mred")))
    with pytest.raises(UnreadableCheckpoint) as caught:
        pickle_scan.check(path)
    assert str(caught.value).isprintable()


def test_a_compressed_bomb_is_refused_without_inflating_it(tmp_path: Path):
    size = 100 * 2**20
    bomb = b"\x80\x02X" + struct.pack("<I", size) + b"a" * size + b"."
    path = _zip(tmp_path / "model.ckpt", ("archive/data.pkl", bomb), compression=zipfile.ZIP_DEFLATED)
    del bomb
    assert path.stat().st_size < 2**20
    before = psutil.Process().memory_info().rss
    with pytest.raises(UnreadableCheckpoint, match="compressed entries"):
        pickle_scan.check(path)
    assert psutil.Process().memory_info().rss - before < 20 * 2**20


def test_a_description_without_end_is_refused(tmp_path: Path):
    path = _zip(tmp_path / "model.ckpt", ("archive/data.pkl", b"\x80\x02" + b"]0" * (pickle_scan.MAX_PICKLE // 2)))
    with pytest.raises(UnreadableCheckpoint, match=f"at most {pickle_scan.MAX_PICKLE} are allowed"):
        pickle_scan.check(path)


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
    path = _zip(tmp_path / "model.ckpt", *[(name, _pickle()) for name in names])
    with pytest.raises(UnreadableCheckpoint, match=r"every entry once, and one of them named data\.pkl"):
        pickle_scan.check(path)


@pytest.mark.parametrize(
    "pickled", [b"", b"\x80", b"\x80\x02", b"\xff\xff", b"\x80\x02cos", b"\x80\x02X\xff\xff\xff\x7fa."]
)
def test_a_broken_description_is_refused(pickled: bytes, tmp_path: Path):
    path = _zip(tmp_path / "model.ckpt", ("archive/data.pkl", pickled))
    with pytest.raises(UnreadableCheckpoint, match="damaged"):
        pickle_scan.check(path)


@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/data/0"])
def test_a_stored_entry_whose_sizes_differ_is_refused(name: str, tmp_path: Path):
    path = _zip(tmp_path / "model.ckpt", ("archive/data.pkl", _pickle()), ("archive/data/0", b"1234"))
    pickle_scan.check(path)
    data = bytearray(path.read_bytes())
    entry = data.index(name.encode(), data.index(b"PK\x01\x02")) - 46  # of the central directory
    (size,) = struct.unpack_from("<I", data, entry + 24)
    struct.pack_into("<I", data, entry + 24, size + 2**30)
    path.write_bytes(data)
    with pytest.raises(UnreadableCheckpoint, match="compressed entries"):
        pickle_scan.check(path)


@pytest.mark.slow
def test_the_largest_description_is_just_taken(tmp_path: Path):
    ends = len(b"\x80\x02") + len(b"]0") + len(b"}.")
    body = b"\x80\x02" + b"K\x010" * ((pickle_scan.MAX_PICKLE - ends) // 3)
    body += b"N0" * ((pickle_scan.MAX_PICKLE - len(body) - len(b"}.")) // 2) + b"}."
    body = body.ljust(pickle_scan.MAX_PICKLE, b" ")  # nothing behind the end of a pickle is read
    assert len(body) == pickle_scan.MAX_PICKLE
    pickle_scan.check(_zip(tmp_path / "model.ckpt", ("archive/data.pkl", body)))
