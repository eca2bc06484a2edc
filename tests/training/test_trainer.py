from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dubio.models import MLP, ConvNet, load
from dubio.models.errors import ModelError
from dubio.training import CalibrationSettings, Classifier, Digits
from dubio.training.errors import NetworkMismatch, TrainingError
from dubio.training.trainer import Trainer, check, network_spec
from dubio.uncertainty.errors import CalibrationSetTooSmall, NoDropoutFound, UnsupportedNetwork

QUICK = CalibrationSettings(num_samples=4)
WIDE = {"in_features": 64, "widths": [512, 256, 128], "num_classes": 10, "rates": [0.5, 0.4, 0.3]}


class Acme(MLP):
    """A user's own network."""


def recorded(network: nn.Module, arguments: dict) -> Classifier:
    """A classifier with the record that the command line leaves."""
    model = Classifier(network)
    model.save_hyperparameters({"network": {"class_path": "ignored", "init_args": arguments}})
    return model


@pytest.fixture
def trainer() -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)


def test_calibrating_leaves_the_source_and_the_model_alone(
    tmp_path: Path, runs: Path, trainer: Trainer, digits: Digits
):
    best = runs / "digits_mlp" / "checkpoints" / "best.ckpt"
    source = tmp_path / "source.ckpt"
    source.write_bytes(best.read_bytes())
    model = recorded(MLP(**WIDE), WIDE)
    head = model.network.head.weight.clone()
    output = tmp_path / "deep" / "model.ckpt"
    predictor = trainer.calibrate(model, digits, QUICK, str(source), str(output))
    assert source.read_bytes() == best.read_bytes()
    assert torch.equal(model.network.head.weight, head)
    assert model.network.training
    x = digits.raw("test")[0][:5]
    # Each measures which strategy runs its members fastest, and strategies round differently.
    np.testing.assert_allclose(load(output).predict(x).mc_mean, predictor.predict(x).mc_mean, atol=1e-5)


def test_a_users_own_network_can_be_calibrated(
    tmp_path: Path, runs: Path, trainer: Trainer, digits: Digits, monkeypatch
):
    # pytest imports test files without adding them to sys.modules under a dotted name that import finds.
    monkeypatch.setitem(__import__("sys").modules, "acme_networks", type("Module", (), {"Acme": Acme}))
    monkeypatch.setattr(Acme, "__module__", "acme_networks")
    best = str(runs / "digits_mlp" / "checkpoints" / "best.ckpt")
    output = str(tmp_path / "model.ckpt")
    predictor = trainer.calibrate(recorded(Acme(**WIDE), WIDE), digits, QUICK, best, output)
    assert predictor.network_spec.class_path == "acme_networks.Acme"
    with pytest.raises(ModelError, match="neither in the registry"):
        load(output)
    assert isinstance(load(output, trusted=["acme_networks"]).network, Acme)


def test_weights_of_another_network_are_refused(tmp_path: Path, runs: Path, trainer: Trainer, digits: Digits):
    arguments = {**WIDE, "widths": [64, 256, 128]}
    best = str(runs / "digits_mlp" / "checkpoints" / "best.ckpt")
    with pytest.raises(ModelError, match="the weights do not fit the network"):
        trainer.calibrate(recorded(MLP(**arguments), arguments), digits, QUICK, best, str(tmp_path / "model.ckpt"))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path, trainer: Trainer, digits: Digits):
    path = tmp_path / "no.ckpt"
    with pytest.raises(ModelError, match="no such file"):
        trainer.calibrate(recorded(MLP(**WIDE), WIDE), digits, QUICK, str(path), str(path))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="not a checkpoint"):
        trainer.calibrate(recorded(MLP(**WIDE), WIDE), digits, QUICK, str(path), str(path))


def test_paths_are_needed(trainer: Trainer, digits: Digits):
    with pytest.raises(TrainingError, match="`ckpt_path` and `output`, but got None"):
        trainer.calibrate(recorded(MLP(**WIDE), WIDE), digits, QUICK)


def test_the_spec_is_plain_and_names_the_registrys_class():
    spec = network_spec(recorded(MLP(**WIDE), WIDE))
    assert spec.class_path == "dubio.models.MLP"
    assert spec.init_args == WIDE


def test_a_classifier_without_a_record_is_refused():
    with pytest.raises(TrainingError, match=r"training\.calibration\.calibrate"):
        network_spec(Classifier(MLP(**WIDE)))


def test_an_argument_that_is_not_plain_is_refused_by_name():
    with pytest.raises(TrainingError, match=r"`model\.init_args\.network\.init_args`.*widths"):
        network_spec(recorded(MLP(**WIDE), {**WIDE, "widths": {"class_path": "os.system"}}))


@pytest.mark.parametrize(
    ("network", "arguments", "settings", "error"),
    [
        (MLP(**WIDE), WIDE, CalibrationSettings(alpha=0.001), CalibrationSetTooSmall),
        (MLP(**WIDE), WIDE, CalibrationSettings(num_samples=1), UnsupportedNetwork),
        (MLP(in_features=64, rates=[0, 0, 0]), {}, QUICK, NoDropoutFound),
        (ConvNet(image_size=28), {}, QUICK, NetworkMismatch),
    ],
)
def test_what_would_stop_the_calibration_is_found_before_the_training(digits, network, arguments, settings, error):
    with pytest.raises(error):
        check(recorded(network, arguments), digits, settings)


def test_the_check_passes_and_changes_nothing(digits: Digits):
    model = recorded(MLP(**WIDE), WIDE)
    before, random_state = pickle.dumps(model.network), torch.get_rng_state()
    check(model, digits, QUICK)
    assert pickle.dumps(model.network) == before  # weights, modes and hooks
    assert torch.equal(torch.get_rng_state(), random_state)
