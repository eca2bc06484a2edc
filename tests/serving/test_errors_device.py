"""Errors of an accelerator: told apart, and what becomes of a process whose device is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from dubio.models.device import lost
from dubio.models.memory import exhausted

# As CUDA does after a fault: this call fails, and so does every one behind it.
FAULTY = '''
import os, pathlib
import torch
from dubio.models import MLP

class FaultyMLP(MLP):
    """An MLP whose device is lost once the file DUBIO_TEST_FAULT names exists."""

    def forward(self, x):
        if pathlib.Path(os.environ["DUBIO_TEST_FAULT"]).exists():
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\\nCompile with ...")
        return super().forward(x)
'''


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


def test_a_process_whose_device_is_lost_says_so_and_ends(command: Any, numbers_checkpoint: Path, tmp_path: Path):
    (tmp_path / "faulty_networks.py").write_text(FAULTY)
    content = torch.load(numbers_checkpoint, weights_only=True)
    content["dubio"]["network"]["class_path"] = "faulty_networks.FaultyMLP"
    torch.save(content, tmp_path / "faulty.ckpt")
    fault = tmp_path / "fault"
    arguments = (str(tmp_path / "faulty.ckpt"), "--trusted", "faulty_networks", "--strategy", "loop")
    environment = {"PYTHONPATH": str(tmp_path), "DUBIO_TEST_FAULT": str(fault), "DUBIO_DRAIN_SECONDS": "5"}
    with command.started(*arguments, **environment) as service:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            row = {"instances": [[1, 2, 3, 4, 5]]}
            assert client.post("/v1/predict", json=row).status_code == 200
            fault.touch()
            refused = client.post("/v1/predict", json=row)
            assert refused.status_code == 503
            assert refused.json()["type"] == "urn:dubio:problem:device-lost"
            # The process answers until it has drained.
            assert [client.get(f"/v2/health/{each}").status_code for each in ("ready", "live")] == [503, 503]
        service.process.wait(30)
        assert "an illegal memory access was encountered" in service.log
        assert "Traceback" not in service.log
