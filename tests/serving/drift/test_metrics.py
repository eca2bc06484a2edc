"""Drift as a scrape shows it."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dubio.models import Predictor
from dubio.serving.drift.metrics import ALARM, E_VALUE, DriftCollector
from dubio.serving.drift.monitor import DriftMonitor
from dubio.serving.repository.registry import ServedModel
from dubio.serving.states import FolderStates
from dubio.serving.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[3]


def test_each_version_with_a_promise_has_its_evidence(
    tmp_path: Path, predictor: Predictor, bars: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = ServedModel("bars", "1", predictor), ServedModel("bars", "2", predictor)
    mute = ServedModel("mute", "1", replace(predictor, detector=None))
    monitor, metrics = DriftMonitor(FolderStates(tmp_path / "drift"), 0.01), Metrics()
    metrics.registry.register(DriftCollector(monitor, lambda: [old, new, mute]))

    def value(name: str, model: ServedModel) -> float | None:
        return metrics.registry.get_sample_value(name, {"model": model.name, "version": model.version})

    assert [value(E_VALUE, model) for model in (old, new, mute)] == [1, 1, None]
    monitor.observe(new, predictor.predict(bars + 400))
    monitor.flush()
    assert [value(ALARM, model) for model in (old, new, mute)] == [0, 1, None]
    assert value(E_VALUE, new) > 100
    assert value(E_VALUE, old) == 1

    [file] = (tmp_path / "drift").glob("*.json")
    shutil.rmtree(tmp_path / "drift")
    (tmp_path / "drift").touch()  # nothing can be read below a file
    with caplog.at_level(logging.ERROR, "dubio"):
        assert [value(E_VALUE, model) for model in (old, new) for _ in range(2)] == [None] * 4
    assert [str(file.parent) in record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        True
    ]
    assert b"dubio_in_flight_requests" in metrics.render()


def test_operators_find_the_gauges_in_the_documentation() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for name in (E_VALUE, ALARM):
        assert f"| `{name}`" in text
