"""Where models are loaded, and that their refusals arrive."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from dubio.models.errors import MismatchedCheckpoints, UnreadableCheckpoint
from dubio.serving.compute.process import ComputeProcess
from dubio.serving.errors import UnusableDevice
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.remote_loader import RemoteLoader, build_loader
from dubio.serving.repository.source import ModelSource


@pytest.fixture
def process() -> Iterator[ComputeProcess]:
    process = ComputeProcess(trials=False)
    yield process
    process.close()


def test_without_a_process_models_are_loaded_here(settings: Callable) -> None:
    loader = build_loader(settings(strategy="loop", load_trial="none", trusted=("mine",)), 2, None, prepare=int)
    assert loader == Loader(device="cpu", trusted=("mine",), strategy="loop", trial=False)


def test_a_model_is_loaded_there_and_refusals_arrive(
    process: ComputeProcess, settings: Callable, checkpoint: Path, tmp_path: Path
) -> None:
    given = settings(strategy="loop", load_trial="none", device="cpu")
    loader = build_loader(given, 1, process, prepare=partial(logging.basicConfig, level="ERROR"))
    assert isinstance(loader, RemoteLoader)
    loader.try_device()
    served = loader.load(ModelSource("bars", checkpoint, version="7"))
    assert (served.name, served.version, served.facts.promise.alpha) == ("bars", "7", 0.05)
    (tmp_path / "broken.ckpt").write_bytes(b"nothing")
    with pytest.raises(UnreadableCheckpoint) as refused:
        loader.load(ModelSource("broken", tmp_path / "broken.ckpt"))
    assert refused.value.path == str(tmp_path / "broken.ckpt")
    assert refused.value.reason in str(refused.value)
    with pytest.raises(MismatchedCheckpoints, match="checkpoint 2 is the same as checkpoint 1"):
        loader.load(ModelSource("twice", checkpoint, (checkpoint,)))


def test_a_device_that_is_not_there_is_refused_there(process: ComputeProcess, settings: Callable) -> None:
    loader = build_loader(settings(device="cuda:77", load_trial="none"), 1, process, prepare=int)
    with pytest.raises(UnusableDevice, match="cuda:77"):
        loader.try_device()
