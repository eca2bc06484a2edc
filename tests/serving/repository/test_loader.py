from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dubio.models import MLP, Ensemble, InputSpec, NetworkSpec, Predictor
from dubio.models.errors import MismatchedCheckpoints, UnreadableCheckpoint
from dubio.serving.errors import UnusableDevice
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.source import ModelSource
from tests.serving.conftest import HIGH, SIDE, draw_bars, write_checkpoint


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
    assert len(os.listdir("/proc/self/fd")) <= descriptors


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_network_serves_in_the_precision_that_it_was_trained_in(loader: Loader, tmp_path: Path, dtype: torch.dtype):
    arguments = {"in_features": SIDE * SIDE, "widths": [16], "num_classes": 4, "rates": [0.3]}
    inputs = InputSpec(kind="image", shape=(1, SIDE, SIDE), mean=(4.0,), std=(4.0,), low=0.0, high=HIGH)
    network = MLP(**arguments).to(dtype)
    spec = NetworkSpec(class_path="dubio.models.MLP", init_args=arguments)
    path = write_checkpoint(tmp_path / "model.ckpt", network, spec, inputs, draw_bars)
    served = loader.load(ModelSource("wide", path)).predictor
    assert isinstance(served, Predictor)
    assert {parameter.dtype for parameter in served.network.parameters()} == {dtype}
    x = draw_bars(50, 4)[0]
    answer, auto = served.predict(x), served.predict(x, samples="auto")

    exact = copy.deepcopy(served.network).double()
    with torch.no_grad():
        logits_BC = exact((torch.from_numpy(x).double() - 4) / 4)
    expected = (logits_BC / served.temperature.deterministic).softmax(-1)
    step = max(1e-6, 8 * torch.finfo(dtype).eps)
    np.testing.assert_allclose(answer.probabilities, expected, atol=step)
    for prediction in (answer, auto):
        for name in ("probabilities", "mc_mean", "mc_std", "predictive_entropy", "mutual_information"):
            assert getattr(prediction, name).dtype == np.float32
        assert len(np.unique(prediction.mutual_information)) > 45
        assert prediction.flagged is not None
