"""What a hostile file does to a service: nothing, while it is tried and afterwards."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch

from dubio.models import trial_client
from dubio.models.errors import TrialUnavailable, UnreadableCheckpoint
from dubio.models.trial import Limits
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.retries import passes
from dubio.serving.repository.source import ModelSource

SLEEPY = """
import os, pathlib, time
from dubio.models import MLP

if pathlib.Path(os.environ["DUBIO_TEST_SLEEP"]).exists():
    pathlib.Path(os.environ["DUBIO_TEST_SLEEP"]).write_text(f"{os.getpid()} {os.getppid()}.")
    time.sleep(600)

class SleepyMLP(MLP):
    pass
"""

GREEDY = """
from dubio.models import MLP

held = bytearray(2**30)  # more than what any process has free from its start

class GreedyMLP(MLP):
    pass
"""


@pytest.fixture
def sleepy(numbers_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint whose module sleeps when imported, for as long as the file `sleep` beside it exists."""
    (tmp_path / "sleepy_networks.py").write_text(SLEEPY)
    (tmp_path / "sleep").touch()
    return _of_class(numbers_checkpoint, "sleepy_networks.SleepyMLP", tmp_path / "sleepy.ckpt")


@pytest.fixture
def greedy(numbers_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose module takes a gibibyte when imported."""
    (tmp_path / "greedy_networks.py").write_text(GREEDY)
    monkeypatch.syspath_prepend(tmp_path)
    return _of_class(numbers_checkpoint, "greedy_networks.GreedyMLP", tmp_path / "greedy.ckpt")


def test_what_is_tried_is_what_is_loaded(checkpoint: Path, bars: np.ndarray, predictor: Any) -> None:
    descriptors = set(os.listdir("/proc/self/fd"))
    loaded = Loader(device="cpu", trusted=(), trial=Limits()).load(ModelSource("bars", checkpoint)).predictor
    np.testing.assert_allclose(loaded.predict(bars).mc_mean, predictor.predict(bars).mc_mean, atol=1e-5)
    trial_client.servers.close()
    assert set(os.listdir("/proc/self/fd")) <= descriptors


def test_without_a_trial_nothing_is_loaded_and_it_is_tried_again(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial_client.servers.close()
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(TrialUnavailable, match="`load_trial` to none") as caught:
        Loader(device="cpu", trusted=(), trial=Limits()).load(ModelSource("bars", checkpoint))
    assert str(caught.value).startswith(f"{checkpoint}: it cannot be tried")
    assert passes(caught.value)
    assert Loader(device="cpu", trusted=(), trial=False).load(ModelSource("bars", checkpoint)).name == "bars"


def test_a_file_that_takes_too_much_is_to_blame_itself(greedy: Path) -> None:
    with pytest.raises(UnreadableCheckpoint, match="load_bytes") as caught:
        Loader(device="cpu", trusted=("greedy_networks",), trial=Limits(size=2**28)).load(ModelSource("bars", greedy))
    assert str(caught.value).startswith(f"{greedy}: its trial load")
    assert not passes(caught.value)


@pytest.mark.slow
def test_a_service_answers_while_a_file_is_tried_and_goes_on(
    command: Any, checkpoint: Path, sleepy: Path, bars: np.ndarray, tmp_path: Path
) -> None:
    served, sleep = tmp_path / "served", tmp_path / "sleep"
    _put(checkpoint, served / "bars" / "1" / "model.ckpt")
    arguments = ("--model-repository", str(served), "--model-control", "poll", "--poll-seconds", "0.1")
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    environment |= {"DUBIO_LOAD_TRIAL": "process", "DUBIO_TEST_SLEEP": str(sleep), "DUBIO_LOAD_SECONDS": "1"}
    with command.started(*arguments, "--trusted", "sleepy_networks", **environment) as service:
        _put(sleepy, served / "bad" / "1" / "model.ckpt")
        tried, server = _wait(lambda: _noted(sleep))
        answered = 0
        while psutil.pid_exists(tried):
            assert httpx.get(f"{service.url}/v2/health/ready").status_code == 200
            answer = httpx.post(f"{service.url}/v1/models/bars/predict", json={"instances": bars[:1].tolist()})
            assert answer.status_code == 200
            answered += psutil.pid_exists(tried)
            time.sleep(0.05)
        assert answered
        service.wait_for("Cannot serve model bad version 1")
        assert "more than 5 s, 5 times the 1 that `load_seconds` allows, so it was ended" in service.log
        # The loader is free: the next version of the good model is served.
        _put(checkpoint, served / "bars" / "2" / "model.ckpt")
        service.wait_for("Loaded model bars version 2")
        # And a service that ends in the middle of a trial takes it along.
        sleep.write_text("")
        _put(sleepy, served / "worse" / "1" / "model.ckpt")
        tried, server = _wait(lambda: _noted(sleep))
        service.process.send_signal(signal.SIGTERM)
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(30)
        _wait(lambda: not any(map(_runs, (tried, server))))
    assert not list(tmp_path.rglob("*.tmp"))


def _of_class(source: Path, class_path: str, path: Path) -> Path:
    """The checkpoint `source` with another class as its network."""
    content = torch.load(source, weights_only=True)
    content["dubio"]["network"]["class_path"] = class_path
    torch.save(content, path)
    return path


def _put(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.with_suffix(".new").write_bytes(source.read_bytes())
    path.with_suffix(".new").rename(path)


def _noted(note: Path) -> list[int]:
    text = note.read_text()
    return [int(pid) for pid in text.removesuffix(".").split()] if text.endswith(".") else []


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # whoever inherits it may reap it later
    except psutil.NoSuchProcess:
        return False


def _wait(found: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return value
