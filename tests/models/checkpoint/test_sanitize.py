from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from dubio.models.checkpoint.sanitize import MAX_DEPTH, MAX_LENGTH, MAX_VALUES, Sanitizer, check_tensor
from dubio.models.errors import ModelError


def _copy(value: object, max_bytes: int = 10**6) -> Any:
    return Sanitizer(max_bytes).copy(value, "dubio")


def _deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _shared(doublings: int) -> list[Any]:
    value: list[Any] = [0]
    for _ in range(doublings):
        value = [value, value]
    return value


def test_a_copy_is_equal_and_shares_nothing():
    tensor = torch.arange(6.0).reshape(2, 3).T
    value = {"a": [1, -0.5, True, None, "text"], "b": (1, (2,)), "c": {"d": tensor}}
    copy = _copy(value)
    assert copy["a"] == value["a"]
    assert copy["b"] == value["b"]
    assert torch.equal(copy["c"]["d"], tensor)
    tensor.zero_()
    value["a"].append(1)
    assert copy["c"]["d"].sum() == 15
    assert len(copy["a"]) == 5


def test_an_ordered_dict_whose_methods_are_shadowed_is_copied():
    shadowed = OrderedDict(a=1)
    shadowed.items = shadowed.keys = shadowed.__iter__ = 5
    assert _copy(shadowed) == {"a": 1}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"a": {1, 2}}, "dubio.a"),
        ({"a": [0, 1j]}, r"dubio.a\[1\]"),
        ({"a": b"bytes"}, "dubio.a"),
        ({"a": torch.float32}, "dubio.a"),
        ({"a": torch.device("cpu")}, "dubio.a"),
        ({"a": 2**63}, "dubio.a"),
        ({"a": -(10**5000)}, "dubio.a"),
        ({"a": "x" * (MAX_LENGTH + 1)}, "dubio.a"),
        ({"a": {1: 2}}, "dubio.a"),
        ({"a": {10**5000: 2}}, "dubio.a"),
        ({"a": {"\n[31m": 2}}, "dubio.a"),
        ({("a",): 1}, "dubio"),
    ],
)
def test_what_is_not_plain_is_refused_by_field(value: object, field: str):
    with pytest.raises(ModelError, match=f"^field `{field}`: expected"):
        _copy(value)


def test_the_longest_string_key_and_integer_are_just_taken():
    value = {"k" * MAX_LENGTH: "x" * MAX_LENGTH, "largest": 2**63 - 1, "smallest": -(2**63)}
    assert _copy(value) == value
    with pytest.raises(ModelError, match="keys to be names"):
        _copy({"k" * (MAX_LENGTH + 1): 1})


def test_depth_is_bounded_and_so_is_a_list_that_holds_itself():
    loop: list[Any] = []
    loop.append(loop)
    for value in (_deep(MAX_DEPTH), _deep(50_000), loop):
        with pytest.raises(ModelError, match=f"at most {MAX_DEPTH} deep"):
            _copy(value)
    assert _copy(_deep(MAX_DEPTH - 1)) == _deep(MAX_DEPTH - 1)


def test_shared_values_count_every_time():
    wide = [_shared(8)] * 2**12
    with pytest.raises(ModelError, match=f"at most {MAX_VALUES} values"):
        _copy(wide)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(2**40),
        torch.zeros(251, dtype=torch.float32),
        torch.zeros(63, dtype=torch.complex128),
    ],
)
def test_tensors_claim_no_more_bytes_than_the_file_has(tensor: torch.Tensor):
    with pytest.raises(ModelError, match=r"field `dubio\[0\]`: the tensors claim more bytes"):
        _copy([tensor], max_bytes=1000)


def test_tensors_count_together():
    tensor = torch.zeros(100)
    assert len(_copy([tensor] * 2, max_bytes=800)) == 2
    with pytest.raises(ModelError, match=r"dubio\[2\]"):
        _copy([tensor] * 3, max_bytes=800)


class Odd(torch.Tensor):
    pass


def _with_attribute() -> torch.Tensor:
    tensor = torch.zeros(2)
    tensor.numel = 5
    return tensor


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(2).as_subclass(Odd),
        _with_attribute(),
    ],
    ids=["sparse", "meta", "subclass", "attribute"],
)
def test_only_dense_tensors_in_memory_are_taken(tensor: torch.Tensor):
    with pytest.raises(ModelError, match=r"^field `x`: expected a"):
        check_tensor(tensor, "x")


def test_parameters_are_taken_and_lose_their_gradient():
    assert not _copy(nn.Parameter(torch.zeros(2))).requires_grad
