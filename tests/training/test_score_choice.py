"""Which scores are fitted by default, by kind of input and network."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from dubio.models import MLP, ConvNet, InputSpec, NetworkSpec, load, save
from dubio.training import CalibrationSettings, Digits, calibrate
from dubio.training.score_choice import DEFAULT_SCORES, ScoreName, choose, default_scores, may_be_fitted
from dubio.uncertainty.detection.blocks import Block
from dubio.uncertainty.detection.registry import SCORES

FOUND = (Block("body.0", 1),)


def _image(*shape: int) -> InputSpec:
    low, high = [0.0] * shape[0], [1.0] * shape[0]
    return InputSpec(kind="image", shape=shape, mean=low, std=high, low=0.0, high=1.0)


def test_the_scores_that_can_be_asked_for_are_those_of_the_registry():
    assert set(get_args(ScoreName)) == set(SCORES)
    # The help of `calibration.scores` is this text.
    assert [name for name in SCORES if name not in str(CalibrationSettings.__doc__)] == []


@pytest.mark.parametrize("kind", get_args(InputSpec.model_fields["kind"].annotation))
def test_every_kind_of_input_has_scores_of_its_own_one_of_which_asks_the_members(kind):
    names = DEFAULT_SCORES[kind]
    assert any(SCORES[name].asks_members for name in names)
    assert not {"block_mahalanobis", "input_mahalanobis"} & set(names)


@pytest.mark.parametrize(
    ("kind", "shape", "found", "backstop"),
    [
        ("image", (1, 28, 28), FOUND, ("block_mahalanobis",)),
        ("image", (3, 500, 500), FOUND, ("block_mahalanobis",)),
        ("image", (3, 36, 36), (), ("input_mahalanobis",)),
        ("image", (3, 37, 37), (), ()),
        ("table", (30,), (), ("input_mahalanobis",)),
        ("table", (30,), FOUND, ("input_mahalanobis",)),
        ("numbers", (5000,), (), ()),
        ("text", (32,), FOUND, ()),
    ],
)
def test_the_backstop_is_the_blocks_of_an_image_network_or_else_the_input(kind, shape, found, backstop):
    spec = InputSpec.model_construct(kind=kind, shape=shape)
    wide = shape == (5000,)
    chosen = [name for name in DEFAULT_SCORES[kind] if not wide or name != "input_class_mahalanobis"]
    assert default_scores(spec, found) == (*chosen, *backstop)
    assert set(may_be_fitted(spec, None)) <= {*DEFAULT_SCORES[kind], "input_mahalanobis"}


def test_blocks_are_looked_for_where_they_are_needed_only():
    network = ConvNet(image_size=8, widths=(4, 4), rates=(0.1, 0.1), dense=8, depths=1).eval()
    names, found = choose(_image(1, 8, 8), None, network)
    assert (names[-1], [block.name for block in found]) == ("block_mahalanobis", ["body.0", "body.1"])
    assert choose(_image(1, 8, 8), ("energy",), network) == (("energy",), ())
    assert choose(_image(1, 8, 8), ("energy", "block_mahalanobis"), network)[1] == found
    assert choose(_image(1, 8, 8), None, MLP(64).eval())[0][-1] == "input_mahalanobis"


def test_a_checkpoint_whose_scores_look_at_blocks_answers_alike_after_loading(tmp_path, digits: Digits):
    arguments = {"image_size": 8, "widths": [6, 8], "rates": [0.2, 0.2], "dense": 16, "depths": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ConvNet(**arguments).eval().requires_grad_(False)
    spec = NetworkSpec(class_path="dubio.models.ConvNet", init_args=arguments)
    predictor = calibrate(network, spec, digits, CalibrationSettings(num_samples=4), measure_seconds=0.1)
    assert [score.name for score in predictor.detector.scores][-1] == "block_mahalanobis"
    assert [block.name for block in predictor.tap.blocks] == ["body.0", "body.1"]
    save(predictor, None, tmp_path / "model.ckpt")
    loaded = load(tmp_path / "model.ckpt")
    x = digits.raw("test")[0][:50]
    noise = 16 * torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert [block.name for block in loaded.tap.blocks] == ["body.0", "body.1"]
    for rows in (x, noise):
        before, after = predictor.predict(rows), loaded.predict(rows)
        assert abs(before.p_value - after.p_value).max() <= 0.02
    assert loaded.predict(noise).flagged.mean() > 0.5  # of a network that has learned nothing
