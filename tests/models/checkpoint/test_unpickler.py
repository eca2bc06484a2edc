from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from dubio.models.checkpoint import file, unpickler
from dubio.models.errors import UnreadableCheckpoint
from tests.models.checkpoint.archives import described, text, write

COUNTER = b"ccollections\nCounter\n"
ORDERED = b"ccollections\nOrderedDict\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(" + text("storage") + b"ctorch\nByteStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
NO_HOOKS = ORDERED + b")R"


def _read(tmp_path: Path, pickled: bytes) -> Any:
    path = write(tmp_path / "model.ckpt", ("archive/data.pkl", pickled), ("archive/data/0", b"abcd"))
    return file.read_content(path)


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, torch.Tensor):
        alike = (type(value), value.dtype, value.requires_grad, value.stride()) == (
            type(other), other.dtype, other.requires_grad, other.stride()
        )  # fmt: skip
        return alike and torch.equal(value, other)
    if isinstance(value, dict) and type(value) is type(other):
        metadata = getattr(value, "_metadata", None) == getattr(other, "_metadata", None)
        return metadata and list(value) == list(other) and all(map(_same, value.values(), other.values()))
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(_same, value, other))
    return type(value) is type(other) and value == other


def test_what_torch_writes_is_read_as_torch_reads_it(tmp_path: Path):
    shared, lists, dicts = torch.arange(6.0), [1, [2]], OrderedDict(a={"b": 1})
    content: dict[str, Any] = {
        "state_dict": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "types": [torch.zeros(2, dtype=dtype) for dtype in unpickler._STORAGES.values()],
        "shared": [shared, shared[2:4], shared.view(2, 3).t(), shared],
        "shapes": [torch.zeros(()), torch.zeros(0), torch.zeros(3, 0), torch.zeros(1).requires_grad_()],
        "numbers": [1, -1, 255, 256, 2**16, 2**31, -(2**31), 2**40, -(2**70), 0.5, float("inf"), 1j],
        "rest": ["text", "\u00e9\U0001f600", None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[]], {}],
        "torch": [torch.Size([1, 2]), torch.float32, torch.device("cpu"), torch.device("cuda", 1)],
        "twice": [lists, lists, (lists, lists), [lists], dicts, dicts, {"again": dicts, "and": dicts["a"]}],
        "counted": Counter({3: 1, 5: 2}),
        "many": {index: str(index) for index in range(3000)},
    }
    torch.save(content, tmp_path / "model.ckpt")
    read = file.read_content(tmp_path / "model.ckpt")
    assert _same(read, torch.load(tmp_path / "model.ckpt", weights_only=True))
    views = read["shared"]
    assert len({each.untyped_storage().data_ptr() for each in views}) == 1
    assert views[0] is views[3]
    assert read["twice"][0] is read["twice"][1] is read["twice"][2][0]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "os system",
            "posix system",
            "builtins eval",
            "__builtin__ eval",
            "builtins bytearray",
            "__builtin__ bytearray",
        ),
        *("_codecs encode", "torch FloatTensor", "torch.storage UntypedStorage", "torch._utils _rebuild_sparse_tensor"),
        *("torch._utils _rebuild_meta_tensor_no_storage", "torch._utils _rebuild_wrapper_subclass"),
        *("torch._tensor _rebuild_from_type_v2", "numpy._core.multiarray scalar", "collections OrderedDict.fromkeys"),
        *("__builtin__ set", "builtins frozenset", "torch load", "torch " + "a" * 300),
    ],
)
def test_any_name_beyond_plain_data_and_dense_tensors_is_refused(name: str, tmp_path: Path):
    path = described(tmp_path / "model.ckpt", b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n}.")
    with pytest.raises(UnreadableCheckpoint, match=r"cut short|nothing was run") as caught:
        file.read_content(path)
    assert len(name) > 256 or f"names `{name.replace(' ', '.')}`" in str(caught.value)


def test_control_characters_in_a_name_do_not_reach_the_message(tmp_path: Path):
    with pytest.raises(UnreadableCheckpoint) as caught:
        _read(tmp_path, b"\x80\x02cos\n\x1b[31mred\n.")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "pickled", [b"", b"\x80", b"\x80\x02", b"\xff\xff", b"\x80\x02cos", b"\x80\x02X\xff\xff\xff\x7fa.", b"\x80\x04}."]
)
def test_a_broken_description_is_refused(pickled: bytes, tmp_path: Path):
    with pytest.raises(UnreadableCheckpoint, match=r"cut short|version 2"):
        _read(tmp_path, pickled)


@pytest.mark.parametrize(
    ("pickled", "rule"),
    [
        (b"}}.", "damaged"),
        (b".", "damaged"),
        (b"(}.", "ends within a list"),
        (b"}0.", "never writes the instruction b'0'"),
        (b"\x85.", "damaged"),
        (b"(N\x86.", "damaged"),
        (b"Na.", "damaged"),
        (b"NNa.", "no list or dict that is being read"),
        (b"}NNs.", "names or numbers of 32 bits, but one is a NoneType"),
        (b"}\x8a\x09" + b"\x01" * 9 + b"Ns.", "but one is a larger number"),
        (b"}(K\x01u.", "damaged"),
        (b"]q\x00h\x00a.", "holds itself"),
        (b"]q\x00h\x00\x85a.", "no list or dict that is being read"),
        (b"}]q\x00\x850h\x00Na.", "never writes"),
        (b"(]q\x00\x85h\x00Nat.", "no list or dict that is being read"),
        (b"h\x07.", "damaged"),
        (b"q\x07.", "damaged"),
        (ORDERED + b".", "a function is not plain data"),
        (b"}" + text("a") + ORDERED + b"s.", "a function is not plain data"),
        (ORDERED + b"NR.", "called that is no function"),
        (b"N)R.", "called that is no function"),
        (b"ctorch\nfloat32\n)R.", "called that is no function"),
        (ORDERED + b"N\x85R.", "damaged"),
        (b"}}" + text("a") + b"}sb.", "no list or dict that is being read"),
        (ORDERED + b")R}" + text("items") + b"}sb.", "plain data have no attributes"),
        (ORDERED + b")R}" + text("_metadata") + b"Nsb.", "plain data have no attributes"),
        (ORDERED + b")R}" + text("_metadata") + b"}" + text("") + b"Nssb.", "plain data have no attributes"),
        (ORDERED + b")RNb.", "plain data have no attributes"),
        (COUNTER + b"}" + text("a") + b"]s\x85R.", "what is counted is no number"),
        (b"ctorch\nSize\n]Na\x85R.", "what is counted is no number"),
        (b"ctorch\ndevice\n" + text("a" * 33) + b"\x85R.", "longer name than any has"),
        (b"ctorch\ndevice\nNNN\x87R.", "longer name than any has"),
        (b"ctorch\ndevice\n" + text("nowhere") + b"\x85R.", "damaged"),
        (b"(" + text("storage") + b"N" + text("0") + text("cpu") + b"K\x04tQ.", "something else than the bytes"),
        (b"(" + text("module") + b"NNNNtQ.", "something else than the bytes"),
        (STORAGE.replace(b"K\x04", b"K\x03") + b".", "has 4 bytes for a tensor of 3 numbers"),
        (STORAGE.replace(text("0"), text("7")) + b".", "damaged: '7'"),
        (TENSOR + b"(" + STORAGE + b"K\x00K\x05\x85K\x01\x85\x89" + NO_HOOKS + b"tR.", "beyond the bytes"),
        (TENSOR + b"(" + STORAGE + b"K\x01K\x04\x85K\x01\x85\x89" + NO_HOOKS + b"tR.", "beyond the bytes"),
        (TENSOR + b"(" + STORAGE + b"K\x00K\x05\x85K\x00\x85\x89" + NO_HOOKS + b"tR.", "claims 5 bytes"),
        (TENSOR + b"(" + STORAGE + b"K\x00K\x04\x85J\xff\xff\xff\xff\x85\x89" + NO_HOOKS + b"tR.", "not described as"),
        (TENSOR + b"(" + STORAGE + b"K\x00K\x04\x85)\x89" + NO_HOOKS + b"tR.", "not described as"),
        (TENSOR + b"(NK\x00K\x04\x85K\x01\x85\x89" + NO_HOOKS + b"tR.", "not described as"),
        (TENSOR + b"(" + STORAGE + b"K\x00K\x04\x85K\x01\x85\x89]NatR.", "have hooks"),
        (TENSOR + b"(" + STORAGE + b"K\x00K\x04\x85K\x01\x85\x88" + NO_HOOKS + b"tR.", "only Tensors of floating"),
        (b"]" * 201 + b"a" * 200 + b".", "more than 200 deep"),
    ],
)  # fmt: skip
def test_what_torch_never_writes_is_refused(pickled: bytes, rule: str, tmp_path: Path):
    with pytest.raises(UnreadableCheckpoint, match=rule) as caught:
        _read(tmp_path, b"\x80\x02" + pickled)
    assert str(caught.value).isprintable()


def _alike(count: int) -> bytes:
    """Integers of one hash, each of which a set or a dict compares with all before it."""
    numbers = [(number * (2**61 - 1)).to_bytes(12, "little", signed=True) for number in range(1, count)]
    return b"".join(b"\x8a\x0c" + number + b"N" for number in numbers)


LAUGHS = b"(]q\x00(" + b"N" * 10 + b"e\x85" + b"".join(
    b"]r" + struct.pack("<I", level) + b"(" + (b"j" + struct.pack("<I", level - 1)) * 10 + b"e\x85"
    for level in range(1, 12)
) + b"t."  # fmt: skip


COUNTED = b"(" + COUNTER + b"q\x00}(" + b"".join(b"J" + struct.pack("<i", key) + b"K\x01" for key in range(5000)) + b"u"
MANY = {
    "hashes": (b"}" + _alike(2)[:-1] + b"Ns}(" + _alike(100_000) + b"u.", "names or numbers of 32 bits"),
    "lists": (b"](" + b"]" * 2**22 + b"e.", "more than {MAX_CONTAINERS} lists"),
    "tuples": (b"](" + b"N\x85" * 2**20 + b"e.", "more than {MAX_CONTAINERS} lists"),
    "steps": (b"](" + b"N" * 2**22 + b"e.", "more than {MAX_STEPS} steps"),
    "laughs": (LAUGHS, "more than {MAX_VALUES} values"),
    "copies": (COUNTED + b"\x85q\x02R" + b"h\x00h\x02R" * 2**14 + b"t.", "more than {MAX_VALUES} values are copied"),
    "tensors": (
        b"(" + TENSOR + b"q\x00(" + STORAGE + b"K\x00K\x04\x85K\x01\x85\x89" + NO_HOOKS + b"tq\x01R"
        + b"h\x00h\x01R" * 2**17 + b"t.", "more than {MAX_TENSORS} tensors",
    ),
}  # fmt: skip
LIMITS = ("MAX_STEPS", "MAX_VALUES", "MAX_CONTAINERS", "MAX_TENSORS")


@pytest.mark.parametrize("share", [1 / 64, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MANY)
def test_what_takes_more_than_its_length_is_refused(
    name: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    limits = {limit: int(getattr(unpickler, limit) * share) for limit in LIMITS}
    for limit, value in limits.items():
        monkeypatch.setattr(unpickler, limit, value)
    pickled, rule = MANY[name]
    before = psutil.Process().memory_info().rss
    with pytest.raises(UnreadableCheckpoint, match=rule.format(**limits)):
        _read(tmp_path, b"\x80\x02" + pickled)
    assert psutil.Process().memory_info().rss - before < 250 * 2**20 * max(share, 0.2)


@pytest.mark.slow
def test_the_largest_description_is_just_taken(tmp_path: Path):
    rest = unpickler.MAX_STEPS - len(b"}K](es.")
    pickled = b"\x80\x02}K\x01](" + b"N" * rest + b"es."
    assert len(_read(tmp_path, pickled)[1]) == rest
