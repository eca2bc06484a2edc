"""Weights that were trained elsewhere, loaded for answers without a promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dubio.models import MLP, InputSpec, NetworkSpec, Predictor, TransformersNet, load
from dubio.models.errors import ModelError, UnreadableCheckpoint
from tests.models.networks.transformers_models import BERT, build, tokens

NUMBERS = InputSpec(kind="numbers", shape=(4,), mean=(1.0,) * 4, std=(2.0,) * 4, low=-3, high=5)
ARGUMENTS = {"in_features": 4, "widths": [8], "rates": [0.5], "num_classes": 3}
SPEC = NetworkSpec(class_path="dubio.models.MLP", init_args=ARGUMENTS)
CLASSES = ("a", "b", "c")


@pytest.fixture(params=["safetensors", "torch"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, MLP]:
    """A file of weights, and the network that they are of."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = MLP(**ARGUMENTS).eval()
    path = tmp_path / "weights"
    if request.param == "torch":
        torch.save({"epoch": 3, "model": network.state_dict()}, path)
    else:
        save_file(network.state_dict(), path)
    return path, network


def test_a_spec_and_a_factory_give_the_same_answers_as_the_network(file: tuple[Path, MLP]):
    path, network = file
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        due = network((x - 1) / 2).softmax(-1).numpy()
    means = []
    for given in (SPEC, lambda: MLP(**ARGUMENTS)):
        predictor = load(
            path, network=given, input=NUMBERS, classes=CLASSES, num_samples=8, seed=4, strategy="loop", trial=False
        )
        answer = predictor.predict(x)
        np.testing.assert_allclose(answer.probabilities, due, atol=1e-6)
        assert answer.flagged is None
        assert answer.reasons == ["not_calibrated"] * 5
        assert float(answer.mc_std.min()) > 0
        assert (predictor.committee.num_samples, predictor.committee.seed) == (8, 4)
        means.append(answer.mc_mean)
    np.testing.assert_array_equal(*means)


def test_weights_of_transformers_are_loaded_from_where_the_library_wrote_them(tmp_path: Path):
    theirs, x = build("bert", BERT), tokens(4)
    theirs.save_pretrained(tmp_path)
    spec = NetworkSpec(class_path="dubio.models.TransformersNet", init_args=TransformersNet.arguments(tmp_path))
    ids = InputSpec(kind="numbers", shape=(8,), mean=(0.0,) * 8, std=(1.0,) * 8, low=0, high=39)
    predictor = load(
        tmp_path / "model.safetensors", network=spec, input=ids, classes=CLASSES, num_samples=8, measure_seconds=0.1
    )
    with torch.no_grad():
        due = theirs(input_ids=x, attention_mask=(x != 0).long()).logits.softmax(-1)
    answer = predictor.predict(x)
    np.testing.assert_allclose(answer.probabilities, due.numpy(), atol=1e-5)
    assert float(answer.mc_std.min()) > 0


def test_what_is_not_said_is_asked_for(file: tuple[Path, MLP]):
    path, _ = file
    with pytest.raises(ModelError, match="`network` together with `input` and `classes`, but classes is not given"):
        load(path, network=SPEC, input=NUMBERS, trial=False)
    with pytest.raises(UnreadableCheckpoint, match="not calibrated; run `dubio-train calibrate`"):
        load(path, trial=False)
    with pytest.raises(ModelError, match=r"a torch\.nn\.Module, but got int"):
        load(path, network=lambda: 3, input=NUMBERS, classes=CLASSES, trial=False)  # type: ignore[arg-type,return-value]


def test_other_weights_are_refused(file: tuple[Path, MLP]):
    path, _ = file
    wider = NetworkSpec(class_path="dubio.models.MLP", init_args={**ARGUMENTS, "widths": [9]})
    with pytest.raises(UnreadableCheckpoint, match="the weights do not fit the network MLP"):
        load(path, network=wider, input=NUMBERS, classes=CLASSES, trial=False)


def test_a_calibrated_file_says_itself_what_it_is(saved: Path, trained: Predictor):
    with pytest.raises(UnreadableCheckpoint, match="says itself which network it has"):
        load(saved, network=SPEC, input=NUMBERS, classes=CLASSES, trial=False)
