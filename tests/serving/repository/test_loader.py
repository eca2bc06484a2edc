from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from dubio.models import Ensemble, Predictor
from dubio.models.errors import MismatchedCheckpoints, UnreadableCheckpoint
from dubio.serving.errors import UnusableDevice
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.source import ModelSource


@pytest.fixture
def loader() -> Loader:
    return Loader(device="cpu", trusted=())


def test_one_checkpoint_is_a_predictor(
    loader: Loader, checkpoint: Path, predictor: Predictor, bars: np.ndarray
) -> None:
    model = loader.load(ModelSource("bars", checkpoint, version="7"))
    assert (model.name, model.version) == ("bars", "7")
    # Not to the last bit: each measured which strategy is the fastest.
    np.testing.assert_allclose(model.predictor.predict(bars).mc_mean, predictor.predict(bars).mc_mean, atol=1e-5)


def test_several_are_an_ensemble(loader: Loader, checkpoint: Path, second_checkpoint: Path, bars: np.ndarray) -> None:
    model = loader.load(ModelSource("deep", checkpoint, (second_checkpoint,)))
    assert isinstance(model.predictor, Ensemble)
    assert model.predictor.committee.num_samples == model.predictor.predict(bars).samples == 32
    assert model.predictor.predict(bars).flagged is not None


def test_several_that_do_not_belong_together_are_refused(
    loader: Loader, checkpoint: Path, numbers_checkpoint: Path
) -> None:
    with pytest.raises(MismatchedCheckpoints, match=r"input.kind"):
        loader.load(ModelSource("deep", checkpoint, (numbers_checkpoint,)))
    with pytest.raises(MismatchedCheckpoints, match="the same as checkpoint 1"):
        loader.load(ModelSource("deep", checkpoint, (checkpoint,)))


def test_errors_name_the_file_and_not_its_copy(loader: Loader, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"PK nonsense")
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UnreadableCheckpoint) as caught:
        loader.load(ModelSource("bad", path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "/proc" not in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(UnusableDevice, match=f"but got '{device}'"):
        Loader(device=device, trusted=()).try_device()


def test_the_strategy_is_that_of_every_model(checkpoint: Path, predictor: Predictor, bars: np.ndarray) -> None:
    source = ModelSource("bars", checkpoint)
    looped = Loader(device="cpu", trusted=(), strategy="loop").load(source).predictor
    assert looped.committee.strategy == "loop"
    np.testing.assert_allclose(looped.predict(bars).mc_mean, predictor.predict(bars).mc_mean, atol=1e-5)
    with pytest.raises(UnreadableCheckpoint, match=r"`strategy` to be one of .* but got 'traced'"):
        Loader(device="cpu", trusted=(), strategy="traced").load(source)
