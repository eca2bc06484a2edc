from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from models.checkpoint import weights

A = torch.tensor([[1.0, 2.0]])
B = torch.tensor(3, dtype=torch.int64)


def test_the_hash_covers_names_types_shapes_and_bytes_in_the_order_of_the_names():
    expected = hashlib.sha256(
        b"a torch.float32 (1, 2);" + A.numpy().tobytes() + b"b torch.int64 ();" + B.numpy().tobytes()
    )
    assert weights.sha256({"b": B, "a": A}) == expected.hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"a": A, "c": B},
        {"a": A},
        {"a": A.double(), "b": B},
        {"a": A.reshape(2, 1), "b": B},
        {"a": A.nextafter(torch.tensor(9.0)), "b": B},
    ],
    ids=["name", "missing", "type", "shape", "last bit"],
)
def test_any_difference_changes_the_hash(other: dict[str, Tensor]):
    assert weights.sha256(other) != weights.sha256({"a": A, "b": B})


def test_layout_in_memory_does_not_change_the_hash():
    matrix = torch.arange(6.0).reshape(2, 3)
    assert weights.sha256({"a": matrix.T.contiguous().T}) == weights.sha256({"a": matrix})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.complex64])
def test_types_that_numpy_lacks_are_hashed_too(dtype: torch.dtype):
    ones, zeros = torch.ones(2, dtype=dtype), torch.zeros(2, dtype=dtype)
    assert weights.sha256({"a": ones}) != weights.sha256({"a": zeros})
