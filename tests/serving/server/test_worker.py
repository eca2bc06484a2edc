from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from dubio.serving.server.worker import divide_threads


def test_processors_are_divided_among_workers_and_predictions(settings: Callable) -> None:
    processors = len(os.sched_getaffinity(0))
    given = settings(torch_threads=None, workers=1, prediction_threads=1)
    assert divide_threads(given).torch_threads == processors
    assert divide_threads(given.model_copy(update={"workers": processors})).torch_threads == 1
    assert divide_threads(given.model_copy(update={"workers": 200})).torch_threads == 1
    chosen = settings(torch_threads=3, workers=4)
    assert divide_threads(chosen).torch_threads == 3


@pytest.mark.slow
def test_workers_do_not_outlive_their_supervisor(command: Any, numbers_checkpoint: Path, tmp_path: Path) -> None:
    with command.started(str(numbers_checkpoint), "--workers", "2", TMPDIR=str(tmp_path)) as service:
        children = psutil.Process(service.process.pid).children()
        service.process.kill()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert alive == []
        assert service.log.count("the supervisor is gone") == 2
    # It had no time to tidy up; the next one does it.
    [left] = tmp_path.glob("dubio-*")
    command.refused(str(tmp_path / "nothing.ckpt"), "--workers", "2", "--port", "0", TMPDIR=str(tmp_path))
    assert not left.exists()
