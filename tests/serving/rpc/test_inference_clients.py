"""Unmodified clients of others, each in a process of its own, through a real socket."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.rpc.client import Served

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("client", ["triton_client", "kserve_client"])
def test_the_clients_of_others_work(served: Served, client: str) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", f"tests.serving.rpc.{client}", served.address, served.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
