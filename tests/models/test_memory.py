"""Memory that really runs out, told apart from what is wrong with a file."""

from __future__ import annotations

import errno

import pytest
import torch

from dubio.models.errors import ModelError
from dubio.models.memory import exhausted


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("unable to mmap 400 bytes from file </a>: Cannot allocate memory (12)"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_it_is_found_wherever_it_was_noticed(error: Exception):
    assert exhausted(error) is error
    outer = ModelError("field `dubio`, network: something failed")
    outer.__cause__ = error
    assert exhausted(outer) is error


def test_torchs_own_allocator_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert exhausted(caught.value) is caught.value


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(errno.ENOENT, "No such file"), ValueError()])
def test_other_troubles_are_not_taken_for_it(error: Exception):
    assert exhausted(error) is None
