"""Instruction sets: whichever there is, no call reorders anything, by oneDNN's own log and without a clock."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dubio.uncertainty.execution import kernels

pytestmark = pytest.mark.skipif(
    kernels.missing_onednn(torch.zeros(1)) is not None, reason="torch has no oneDNN operators here"
)
# For oneDNN, and for torch itself as it is on a processor that has no more.
INSTRUCTIONS = {"SSE41": "default", "AVX": "default", "AVX2": "avx2", "DEFAULT": None}
# A convolution's weights have one order for all rows.
ROWS = {"mlp": [*range(1, 66), 128], "convnet": [1, 2, 3, 8, 17, 32, 33, 64, 65]}
ROOT = Path(__file__).resolve().parents[3]


def _child(instructions: str, *arguments: object) -> str:
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    if (capability := INSTRUCTIONS[instructions]) is not None:
        environment["ATEN_CPU_CAPABILITY"] = capability
    command = [sys.executable, "-m", "tests.uncertainty.execution.reorders", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def _no_call_reorders(instructions: str, network: str, strategy: str, threads: int, rows: list[int]) -> None:
    said, at = _child(instructions, network, strategy, threads, *rows), 0
    reorders: dict[int, list[str]] = {}
    for line in said.splitlines():
        if match := re.fullmatch(r"rows (\d+)", line):
            at = int(match[1])
        elif ",exec," in line and ",reorder," in line:
            reorders.setdefault(at, []).append(line)
    assert at == rows[-1]
    assert ",exec," in said  # oneDNN was really asked
    assert not reorders


@pytest.mark.parametrize("instructions", ["AVX2", "DEFAULT"])
def test_few_sizes_reorder_nothing(instructions):
    _no_call_reorders(instructions, "mlp", "thinned", 1, [1, 3, 9, 17, 31, 32, 65])


@pytest.mark.slow
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("strategy", ["chain", "thinned"])
@pytest.mark.parametrize("network", ROWS)
def test_no_size_reorders_anything(instructions, threads, strategy, network):
    _no_call_reorders(instructions, network, strategy, threads, ROWS[network])
