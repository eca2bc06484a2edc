"""The process of a shadow, from outside."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from dubio.models import Predictor
from dubio.serving.compute.model_facts import fingerprint
from dubio.serving.errors import ShadowEnded
from dubio.serving.shadow.process import ShadowProcess


@pytest.fixture
def started(loader: dict[str, Any]) -> Callable:
    """A process that loads a checkpoint."""

    @contextmanager
    def start(checkpoint: Path) -> Iterator[ShadowProcess]:
        request = {"name": "bars", "version": "2", "paths": [str(checkpoint)], "root": str(checkpoint.parent)}
        process = ShadowProcess({**request, "loader": loader})
        try:
            yield process
        finally:
            process.close()

    return start


@pytest.mark.slow
def test_it_answers_as_the_model_does_and_its_end_is_told(
    started: Callable, checkpoint: Path, predictor: Predictor, bars: np.ndarray
) -> None:
    with started(checkpoint) as shadow:
        ready = shadow.await_ready(120)
        assert ready.fingerprint == fingerprint(predictor)
        assert ready.input == predictor.input.model_dump(mode="json")
        assert psutil.Process(shadow.process.pid).nice() == 19
        if sys.platform == "linux":  # niceness alone makes a thread that wakes up wait
            assert os.sched_getscheduler(shadow.process.pid) == os.SCHED_IDLE
            assert os.getsid(shadow.process.pid) == os.getsid(0)  # nor does it count between sessions
        answer, expected = shadow.ask(bars, 60), predictor.predict(bars)
        assert answer.labels == [predictor.classes[each] for each in expected.label]
        assert np.mean(np.array(answer.flagged) == expected.flagged) > 0.95  # rounding may move a p-value at the level
        assert answer.cpu_seconds > 0
        one = np.asfortranarray(bars[:1])
        assert shadow.ask(one, 60).labels == answer.labels[:1]
        refused = shadow.ask(bars[:, :, :3], 60)  # it takes another shape, and goes on
        assert refused.error is not None
        assert shadow.ask(bars[:3], 60).labels == answer.labels[:3]
        shadow.process.send_signal(signal.SIGSTOP)
        with pytest.raises(ShadowEnded, match=r"not ready within 0\.1 s"):
            shadow.ask(bars, 0.1)
        shadow.process.kill()
        with pytest.raises(ShadowEnded, match="SIGKILL"):
            shadow.ask(bars, 60)


@pytest.mark.slow
def test_what_cannot_be_loaded_is_told_without_paths(started: Callable, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"half a fi")
    with started(tmp_path / "model.ckpt") as shadow, pytest.raises(ShadowEnded) as raised:
        shadow.await_ready(120)
    assert str(raised.value)
    assert str(tmp_path) not in str(raised.value)
