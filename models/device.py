"""The device that networks run on: checked by name, and by putting something on it."""

from __future__ import annotations

import torch

from dubio.models.errors import UnusableDevice

KINDS = ("cpu", "cuda")


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
