"""The same answer to the last bit, whoever shares the batch: asked of a real server by many at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.serving.command import Command
from tests.serving.conftest import draw_bars

INPUT = draw_bars(1, 77)[0]
ASKERS = 12
REPEATS = 50
# As in `benchmarks/cliffs.py`.
INSTRUCTIONS = {
    "SSE41": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "AVX": {"ONEDNN_MAX_CPU_ISA": "AVX", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "AVX"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "all": {},
}


def ask(base: str, asker: int, samples: Any) -> tuple[set[str], set[str]]:
    """Ask about the one input again and again among others; give every deterministic and every whole answer to it."""
    draw = np.random.default_rng(asker)
    deterministic, whole = set(), set()
    with httpx.Client(base_url=base, timeout=60) as client:
        for repeat in range(REPEATS):
            others = draw_bars(int(draw.integers(0, 6)), 1000 * asker + repeat)[0]
            place = int(draw.integers(0, len(others) + 1))
            instances = np.concatenate([others[:place], INPUT, others[place:]])
            parameters = {} if samples is None else {"parameters": {"samples": samples}}
            response = client.post("/v1/predict", json={"instances": instances.tolist(), **parameters})
            assert response.status_code == 200, response.text
            answer = response.json()["predictions"][place]
            deterministic.add(json.dumps(answer["deterministic"]))
            whole.add(json.dumps(answer))
    return deterministic, whole


def answers(base: str, samples: Any = None) -> tuple[set[str], set[str]]:
    """Every deterministic and every whole answer that 600 requests got, ASKERS at a time."""
    with ThreadPoolExecutor(ASKERS) as pool:
        found = list(pool.map(lambda asker: ask(base, asker, samples), range(ASKERS)))
    return set().union(*(deterministic for deterministic, _ in found)), set().union(*(whole for _, whole in found))


def test_deterministic_answers_do_not_depend_on_company(serve: Callable, settings: Callable, checkpoint: Path) -> None:
    with serve(settings(models=(str(checkpoint),))) as base:
        deterministic, _ = answers(base)
    assert len(deterministic) == 1


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_whole_answers_do_not_depend_on_company_on_any_processor(
    command: Command, checkpoint: Path, instructions: str, threads: str
) -> None:
    environment = {**INSTRUCTIONS[instructions], "DUBIO_TORCH_THREADS": threads, "OMP_NUM_THREADS": threads}
    with command.started(str(checkpoint), "--batch-invariant", **environment) as running:
        for samples in (None, "auto"):
            deterministic, whole = answers(running.url, samples)
            assert len(deterministic) == len(whole) == 1
