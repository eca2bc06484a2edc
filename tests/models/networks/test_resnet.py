"""The residual network against one written in other words."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dubio.models import ResNet
from dubio.models.networks.resnet import Block
from tests.quick import quick_committee


def _norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return F.batch_norm(
        x, state[f"{name}.running_mean"], state[f"{name}.running_var"], state[f"{name}.weight"], state[f"{name}.bias"]
    )


@pytest.mark.parametrize(("incoming", "width", "stride"), [(4, 4, 1), (4, 6, 1), (4, 4, 2), (3, 5, 2)])
def test_a_block_is_its_formula(incoming: int, width: int, stride: int) -> None:
    torch.manual_seed(0)
    block = Block(incoming, width, stride, rate=0.5)
    for buffer in block.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    x, state = torch.randn(2, incoming, 8, 8), block.eval().state_dict()
    activated = _norm(x, state, "before.0").relu()
    inner = F.conv2d(activated, state["residual.0.weight"], stride=stride, padding=1)
    residual = F.conv2d(_norm(inner, state, "residual.1").relu(), state["residual.4.weight"], padding=1)
    changed = "shortcut.weight" in state
    assert changed == (incoming != width or stride != 1)
    due = residual + (F.conv2d(activated, state["shortcut.weight"], stride=stride) if changed else x)
    torch.testing.assert_close(block(x), due)


def test_shapes_and_parameters_are_those_of_the_paper() -> None:
    network = ResNet(in_channels=3, widths=(16, 32, 64), blocks=3, num_classes=10)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    # ResNet-20 of He 2016: 0.27 million parameters.
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(0.27e6, rel=0.02)


def test_members_vary_and_every_block_is_a_site() -> None:
    committee = quick_committee(ResNet(widths=(4, 8), blocks=2).eval(), torch.randn(1, 1, 8, 8), num_samples=6)
    assert [site.kind for site in committee.sites] == ["dropout2d"] * 4 + ["dropout"]


@pytest.mark.parametrize("arguments", [{"rate": 2.0}, {"head_rate": -1.0}, {"blocks": 0}, {"widths": (0,)}])
def test_wrong_arguments_are_named(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ResNet(**arguments)
