"""The other end: what it does before the first call, and with one that fails."""

from __future__ import annotations

import pickle
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil

from dubio.serving.compute import outcome
from dubio.serving.compute.child import _answer
from dubio.serving.compute.process import ComputeProcess


def test_it_is_prepared_before_it_is_called_and_makes_trials_ready(tmp_path: Path) -> None:
    process = ComputeProcess(trials=True)
    try:
        process.host(SimpleNamespace(seen=(tmp_path / "prepared").exists), partial(Path.touch, tmp_path / "prepared"))
        assert process.call("seen")
        [trials] = psutil.Process(process.pid).children()
        assert "dubio.models.trial_server" in trials.cmdline()
    finally:
        process.close()
    trials.wait(30)


def test_a_thread_bears_the_name_of_what_it_computes() -> None:
    names: list[str] = []

    def call() -> None:
        engine = SimpleNamespace(predict=lambda: threading.current_thread().name)
        names.append(outcome.unpack(_answer(engine, pickle.dumps(("predict", ())))))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert names == ["dubio-predict"]
