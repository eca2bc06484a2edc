"""Errors of a device: lost, without memory, or neither."""

from __future__ import annotations

import pytest
import torch

from dubio.models.device import lost
from dubio.models.memory import exhausted


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ..."),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: unspecified launch failure"),
    ],
)
def test_a_device_that_no_call_will_bring_back_is_lost(error):
    assert lost(error)
    assert exhausted(error) is None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_device_without_memory_is_not_lost(error):
    assert exhausted(error) is not None
    assert not lost(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: invalid argument"),
        RuntimeError("a tensor with a misaligned address"),
        ValueError("CUDA error: misaligned address"),
    ],
)
def test_other_errors_are_neither(error):
    assert not lost(error)
    assert exhausted(error) is None
