"""Errors of an accelerator: told apart, and what becomes of a process whose device is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

# As CUDA does after a fault: this call fails, and so does every one behind it.
FAULTY = '''
import os, pathlib, threading
import torch
from dubio.models import MLP

class FaultyMLP(MLP):
    """An MLP whose device is lost, to threads of some name, once the file DUBIO_TEST_FAULT names exists and says it."""

    def forward(self, x):
        fault = pathlib.Path(os.environ["DUBIO_TEST_FAULT"])
        if fault.exists() and threading.current_thread().name.startswith(fault.read_text()):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\\nCompile with ...")
        return super().forward(x)
'''


@pytest.mark.parametrize("where", ["process", "thread"])
@pytest.mark.parametrize("thread", ["dubio-predict", pytest.param("dubio-explain", marks=pytest.mark.slow)])
def test_a_process_whose_device_is_lost_says_so_and_ends(
    command: Any, numbers_checkpoint: Path, tmp_path: Path, thread: str, where: str
):
    (tmp_path / "faulty_networks.py").write_text(FAULTY)
    content = torch.load(numbers_checkpoint, weights_only=True)
    content["dubio"]["network"]["class_path"] = "faulty_networks.FaultyMLP"
    torch.save(content, tmp_path / "faulty.ckpt")
    fault = tmp_path / "fault"
    arguments = (
        str(tmp_path / "faulty.ckpt"),
        "--trusted",
        "faulty_networks",
        "--strategy",
        "loop",
        "--predict-in",
        where,
    )
    environment = {"PYTHONPATH": str(tmp_path), "DUBIO_TEST_FAULT": str(fault), "DUBIO_DRAIN_SECONDS": "5"}
    with command.started(*arguments, **environment) as service:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            row = {"instances": [[1, 2, 3, 4, 5]], "parameters": {"explain": True}}
            assert client.post("/v1/predict", json=row).status_code == 200
            fault.write_text(thread)
            refused = client.post("/v1/predict", json=row)
            assert refused.status_code == 503
            assert refused.json()["type"] == "urn:dubio:problem:device-lost"
            # The process answers until it has drained.
            assert [client.get(f"/v2/health/{each}").status_code for each in ("ready", "live")] == [503, 503]
        assert service.process.wait(30) == 1
        assert "an illegal memory access was encountered" in service.log
        assert "Traceback" not in service.log
