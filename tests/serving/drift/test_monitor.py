"""Rows on their way from answers to evidence."""

from __future__ import annotations

import gc
import logging
import shutil
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dubio.models import Predictor, Work
from dubio.serving.drift.monitor import DriftMonitor
from dubio.serving.drift.subject import Subject
from dubio.serving.drift.watch import Watch, WatchSlot
from dubio.serving.repository.registry import ServedModel
from dubio.serving.states import FolderStates, MemoryStates


def seen(monitor: DriftMonitor, model: ServedModel) -> Watch:
    subject = monitor.subject(model)
    assert subject is not None
    monitor.flush()
    return monitor.read(subject)


def test_rows_with_a_promise_count_and_no_others(predictor: Predictor, bars: np.ndarray) -> None:
    monitor, model = DriftMonitor(MemoryStates(), 0.01), ServedModel("bars", "1", predictor)
    for prediction in (
        predictor.predict(bars, samples=4),
        predictor.predict(bars, work=Work.DETERMINISTIC),
        predictor.predict(bars, work=Work.LABEL_SET),
        replace(predictor, detector=None).predict(bars),
    ):
        monitor.observe(model, prediction)
    assert seen(monitor, model).rows == 0
    whole, auto = predictor.predict(bars), predictor.predict(bars[:7], samples="auto")
    monitor.observe(model, whole)
    monitor.observe(model, auto)
    watch = seen(monitor, model)
    assert (watch.rows, watch.flagged) == (67, whole.flagged.sum() + auto.flagged.sum())
    expected = Watch.begin(watch.subject, 0.01)
    p_values = [*whole.p_value.tolist(), *auto.p_value.tolist()]
    assert watch.p_values == expected.p_values.observe(p_values)
    assert monitor.subject(ServedModel("bars", "1", replace(predictor, detector=None))) is None


def test_the_alarm_is_logged_once_and_a_reset_too(
    predictor: Predictor, bars: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    monitor, model = DriftMonitor(MemoryStates(), 0.01), ServedModel("bars", "1", predictor)
    strangers = predictor.predict(bars + 400)
    assert strangers.flagged.all()
    with caplog.at_level(logging.WARNING, "dubio"):
        for _ in range(2):
            monitor.observe(model, strangers)
            assert seen(monitor, model).alarm is not None
        subject = Subject.of(model)
        assert subject is not None
        assert monitor.reset(subject).rows == 0
    drift, reset = [record.getMessage() for record in caplog.records]
    assert drift.startswith("Drift: the rows of model bars version 1 are not like its calibration rows any more")
    assert "by request of an administrator, after 120 rows and an alarm" in reset
    assert seen(monitor, model).alarm is None


def test_it_counts_by_itself_and_keeps_no_model_alive(predictor: Predictor, bars: np.ndarray) -> None:
    states = MemoryStates()
    monitor, model = DriftMonitor(states, 0.01), ServedModel("bars", "1", predictor)
    subject = Subject.of(model)
    assert subject is not None
    monitor.start()
    try:
        monitor.observe(model, predictor.predict(bars))
        gone = weakref.ref(model)
        del model
        gc.collect()
        assert gone() is None
        until = time.monotonic() + 30
        while states.read(WatchSlot(subject, 0.01)).rows < len(bars):
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        monitor.close()


def test_what_waits_at_the_end_is_counted(tmp_path: Path, predictor: Predictor, bars: np.ndarray) -> None:
    monitor, model = DriftMonitor(FolderStates(tmp_path), 0.01), ServedModel("bars", "1", predictor)
    monitor.start()
    monitor.observe(model, predictor.predict(bars))
    monitor.close()
    again = DriftMonitor(FolderStates(tmp_path), 0.01)
    again.observe(ServedModel("bars", "1", predictor), predictor.predict(bars))
    assert seen(again, model).rows == 2 * len(bars)


def test_rows_wait_while_the_folder_is_gone(
    tmp_path: Path, predictor: Predictor, bars: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    folder, model = tmp_path / "drift", ServedModel("bars", "1", predictor)
    monitor = DriftMonitor(FolderStates(folder), 0.01)
    shutil.rmtree(folder)
    first, second = bars[:40], bars[40:]
    with caplog.at_level(logging.ERROR, "dubio"):
        for part in (first, second):
            monitor.observe(model, predictor.predict(part))
            monitor.flush()
    assert [str(folder) in record.getMessage() for record in caplog.records] == [True]
    folder.mkdir()
    expected = Watch.begin(seen(monitor, model).subject, 0.01).p_values
    p_values = [*predictor.predict(first).p_value.tolist(), *predictor.predict(second).p_value.tolist()]
    assert seen(monitor, model).p_values == expected.observe(p_values)  # in their order
