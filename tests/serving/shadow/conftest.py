"""Shadows of the model of bars."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dubio.serving.repository.directory import ModelDirectory
from dubio.serving.repository.registry import ServedModel
from dubio.serving.repository.source import ModelSource
from dubio.serving.shadow.shadow import Shadow, Standing, Terms
from dubio.serving.states import MemoryStates
from dubio.serving.telemetry.metrics import Metrics

LOADER: dict[str, Any] = {"trusted": [], "strategy": "loop", "max_bytes": 2**30, "batch_invariant": False}


@pytest.fixture
def loader() -> dict[str, Any]:
    """How a shadow is loaded."""
    return LOADER


@pytest.fixture
def put_shadow(tmp_path: Path) -> Callable[[Path], ModelSource]:
    """Puts a checkpoint into a directory of models as version 2 of `bars`, in the shadow."""

    def put(checkpoint: Path) -> ModelSource:
        folder = tmp_path / "models" / "bars" / "2.shadow"
        folder.mkdir(parents=True)
        shutil.copy(checkpoint, folder / "model.ckpt")
        return ModelDirectory(tmp_path / "models").shadows()["bars"]

    return put


@pytest.fixture
def start_shadow(put_shadow: Callable, predictor: Any) -> Any:
    """Starts a shadow of the model of bars; ends it after the test."""
    started: list[Shadow] = []

    def start(checkpoint: Path, *, wait: bool = True, rate: float = 1.0, seconds: float = 60.0) -> Shadow:
        terms = Terms(rate, margin=0.05, epsilon=0.05, load_seconds=300.0, seconds=seconds)
        live = ServedModel("bars", "1", predictor)
        shadow = Shadow(live, put_shadow(checkpoint), LOADER, terms, MemoryStates(), Metrics())
        started.append(shadow)
        until = time.monotonic() + 300
        while wait and shadow.standing is Standing.LOADING:
            assert time.monotonic() < until
            time.sleep(0.02)
        return shadow

    yield start
    for shadow in started:
        shadow.close()
