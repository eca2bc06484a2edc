"""The device that networks run on: whether it can be used, and whether it is lost."""

from __future__ import annotations

import torch

from dubio.models.errors import UnusableDevice

KINDS = ("cpu", "cuda")
# What CUDA says, in the words of `cudaGetErrorString`, when every later call of the process fails likewise.
_LOST = (
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "misaligned address",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "hardware stack error",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "device-side assert triggered",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error detected",
    "context is destroyed",
)


def usable(name: str) -> torch.device:
    """Give the device of a name.

    Args:
        name: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UnusableDevice: There are no networks on such devices, or torch cannot put a tensor on this one.
    """
    try:
        device = torch.empty(1, device=name).device
    except (RuntimeError, AssertionError) as error:  # unknown to torch, not built in, or not there
        raise UnusableDevice(
            f"Expected `device` to be one that torch can use here, such as cpu, but got {name!r:.80}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if device.type not in KINDS:
        raise UnusableDevice(f"Expected `device` to be cpu, cuda or cuda:N, but got {name!r:.80}.")
    return device


def lost(error: BaseException) -> bool:
    """Whether the process can compute nothing more on its device; torch raises an `AcceleratorError` or, before 2.8,
    a `RuntimeError` in the same words.

    Source: The CUDA Runtime API on `cudaError_t`: after these "the process must be terminated and relaunched".
    """
    return isinstance(error, RuntimeError) and "CUDA" in str(error) and any(words in str(error) for words in _LOST)
