"""The distance at the blocks against scikit-learn's, and what it is there for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance
from sklearn.preprocessing import normalize
from torch import Tensor, nn

from dubio.uncertainty import Detector, DeterministicPass, FeatureTap, Outputs
from dubio.uncertainty.detection import blocks
from dubio.uncertainty.detection.block_scores import BlockGaussians, BlockMahalanobis
from dubio.uncertainty.detection.blocks import Block
from dubio.uncertainty.detection.serialization import dump, load
from dubio.uncertainty.errors import NoFeatures, UncertaintyError


class _Read:
    """A convolutional network whose two classes are light on the left or on the right."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        body = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU()]
        self.network = nn.Sequential(*body, nn.Flatten(), nn.Linear(24, 2)).eval().requires_grad_(False)
        x = torch.zeros(1, 1, 8, 8)
        self.tap = FeatureTap(self.network, x).with_blocks(blocks.find(self.network, x))

    def images(self, rows: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        labels_N = torch.arange(rows) % 2
        x = 0.1 * torch.rand(rows, 1, 8, 8, generator=generator)
        light = 0.5 + 0.5 * torch.rand(rows, 1, 1, generator=generator)
        x[labels_N == 0, :, :, :4] += light[labels_N == 0].unsqueeze(-1)
        x[labels_N == 1, :, :, 4:] += light[labels_N == 1].unsqueeze(-1)
        return x, labels_N

    def outputs(self, x: Tensor) -> Outputs:
        seen = self.tap.read(x)
        return Outputs(seen, seen.logits_BC.softmax(-1).unsqueeze(0))


@pytest.fixture(scope="module")
def read() -> _Read:
    return _Read()


def test_it_is_the_largest_of_scikit_learns_distances_on_one_scale(read):
    x, labels_N = read.images(400, 0)
    train, asked = read.outputs(x).deterministic, read.outputs(read.images(30, 1)[0])

    def roots(pooled_NF: Tensor, seen_BF: Tensor) -> np.ndarray:
        rows = normalize(pooled_NF.double().numpy())
        means = np.stack([rows[labels_N.numpy() == label].mean(0) for label in (0, 1)])
        covariance = EmpiricalCovariance(assume_centered=True).fit(rows - means[labels_N.numpy()]).covariance_
        ridged = EmpiricalCovariance(assume_centered=True)
        ridged.covariance_ = covariance + 1e-3 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        ridged.location_ = np.zeros(len(covariance))
        ridged.precision_ = np.linalg.inv(ridged.covariance_)
        seen = normalize(seen_BF.double().numpy())
        return np.cbrt(np.stack([ridged.mahalanobis(seen - mean) for mean in means]).min(0))

    due = []
    for block, pooled_NF in train.blocks.items():
        known = roots(pooled_NF, pooled_NF)
        due.append((roots(pooled_NF, asked.deterministic.blocks[block]) - known.mean()) / known.std())
    fitted = BlockMahalanobis.fit(train, labels_N)
    np.testing.assert_allclose(fitted.score(asked), np.max(due, axis=0), rtol=1e-3, atol=1e-3)
    assert len(due) == 2


def test_noise_and_constant_and_saturated_images_lie_beyond_every_ordinary_one(read):
    x, labels_N = read.images(400, 0)
    fitted = BlockMahalanobis.fit(read.outputs(x).deterministic, labels_N)
    ordinary = fitted.score(read.outputs(read.images(500, 1)[0]))
    generator = torch.Generator().manual_seed(2)
    strange = {
        "noise": torch.rand(100, 1, 8, 8, generator=generator),
        "constant": torch.linspace(0.2, 1, 100).view(-1, 1, 1, 1).expand(-1, 1, 8, 8),
        "saturated": (x[:100] > 0.3).float() * torch.randint(0, 2, (100, 1, 8, 8), generator=generator),
    }
    for name, images in strange.items():
        assert float(fitted.score(read.outputs(images)).min()) > float(ordinary.max()), name


def test_a_detector_says_which_blocks_it_looks_at(read):
    x, labels_N = read.images(200, 0)
    train, select = read.outputs(x).deterministic, read.outputs(read.images(200, 1)[0])
    both = Detector.fit(train, labels_N, select, ("max_softmax", "block_mahalanobis"), 5)
    assert both.blocks == read.tap.blocks
    assert Detector.fit(train, labels_N, select, ("max_softmax",)).blocks == ()


def test_a_network_without_blocks_and_a_pass_that_did_not_listen_are_refused(read):
    x, labels_N = read.images(100, 0)
    seen = read.outputs(x).deterministic
    deaf = DeterministicPass(seen.inputs_BF, seen.logits_BC, seen.features_BF)
    with pytest.raises(NoFeatures, match="take input_mahalanobis"):
        BlockMahalanobis.fit(deaf, labels_N)
    with pytest.raises(NoFeatures, match="listened to the blocks"):
        BlockMahalanobis.fit(seen, labels_N).score(Outputs(deaf, torch.zeros(0, 100, 2)))


def test_it_comes_back_from_its_state(read):
    x, labels_N = read.images(100, 0)
    outputs = read.outputs(x)
    fitted = BlockMahalanobis.fit(outputs.deterministic, labels_N)
    loaded = load(BlockMahalanobis, dump(fitted), "where")
    assert loaded.blocks == fitted.blocks
    assert torch.equal(loaded.score(outputs), fitted.score(outputs))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"name": 3}, r"where.parts\[1\].name"),
        ({"name": "a" * 1001}, r"where.parts\[1\].name"),
        ({"axis": 0}, "`axis` of the block"),
        ({"axis": 1.0}, r"where.parts\[1\].axis"),
        ({"spread": 0.0}, "`spread` to be positive"),
        ({"spread": float("nan")}, r"where.parts\[1\].spread"),
        ({"gaussians": None}, r"where.parts\[1\].gaussians"),
    ],
)
def test_a_spoiled_state_is_refused_by_name(read, changes, where):
    x, labels_N = read.images(100, 0)
    state = dump(BlockMahalanobis.fit(read.outputs(x).deterministic, labels_N))
    state["parts"][1].update(changes)
    with pytest.raises(UncertaintyError, match=where):
        load(BlockMahalanobis, state, "where")


def test_no_parts_are_refused():
    for parts in ([], (), None, {}, [[]]):
        with pytest.raises(UncertaintyError, match=r"where\.parts"):
            load(BlockMahalanobis, {"parts": parts}, "where")


def test_rows_that_all_look_alike_have_a_spread_that_can_be_divided_by():
    part = BlockGaussians.fit(Block("a", 1), torch.ones(10, 4), torch.arange(10) % 2, 1e-3)
    assert part.spread == 1.0
    assert bool(torch.isfinite(part.strangeness(torch.randn(5, 4))).all())
