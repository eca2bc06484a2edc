from __future__ import annotations

import psutil
import pytest
import torch

from models import MLP, ConvNet, InputSpec, RecurrentNet, cost
from models.errors import ModelError
from models.spec import CommitteeSpec, SiteSpec


def _committee(num_samples: int) -> CommitteeSpec:
    # The sites that a file claims do not matter: those that the network has do.
    sites = [SiteSpec(kind="dropout", p=0.5, shape=[1])]
    return CommitteeSpec(num_samples=num_samples, seed=0, sites=sites, fingerprint="0" * 64)


def _image(channels: int, size: int) -> InputSpec:
    shape, one = (channels, size, size), (1.0,) * channels
    return InputSpec(kind="image", shape=shape, mean=one, std=one, low=0.0, high=1.0)


@pytest.mark.parametrize("network_class", [MLP, ConvNet, RecurrentNet])
def test_the_default_networks_are_affordable_with_the_largest_committee(network_class: type):
    with torch.device("meta"):
        outline = network_class().eval()
    cost.check(outline, _image(1, 28), _committee(4096))


def test_masks_of_many_members_over_many_units_are_refused():
    with torch.device("meta"):
        outline = MLP(in_features=1, widths=(2**22,), num_classes=2, rates=(0.5,)).eval()
    numbers = InputSpec(kind="numbers", shape=(1,), mean=(0.0,), std=(1.0,), low=0.0, high=1.0)
    cost.check(outline, numbers, _committee(64))
    with pytest.raises(ModelError, match="masks of 4096 members would hold 17179869184 numbers"):
        cost.check(outline, numbers, _committee(4096))


def test_huge_images_are_refused_and_take_no_memory():
    with torch.device("meta"):
        outline = ConvNet(image_size=4096, widths=(256,) * 12, rates=(0.2,) * 12, dense=1).eval()
    before = psutil.Process().memory_info().rss
    with pytest.raises(ModelError, match=r"one input would take \d+ bytes"):
        cost.check(outline, _image(1, 4096), _committee(2))
    assert psutil.Process().memory_info().rss - before < 50 * 2**20
