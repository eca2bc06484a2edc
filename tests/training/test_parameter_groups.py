from __future__ import annotations

import pytest
from torch import nn

from dubio.models import MLP, ConvNet, DropConnectMLP, RecurrentNet, ResNet, TransformerNet
from dubio.training import parameter_groups

TOKENS = {"vocabulary": 7, "padding": 0}


@pytest.mark.parametrize(
    "network",
    [
        MLP(in_features=4, widths=[3], rates=[0.5]),
        ConvNet(image_size=4, widths=[2], rates=[0.1], dense=3),
        ResNet(widths=[2, 4], blocks=1),
        DropConnectMLP(in_features=4, widths=[3], rates=[0.5]),
        RecurrentNet(features=3, width=2, **TOKENS),
        TransformerNet(length=4, width=4, heads=2, layers=1, pooling="cls", **TOKENS),
    ],
    ids=lambda network: type(network).__name__,
)
def test_all_that_is_multiplied_with_inputs_is_found_and_nothing_else(network: nn.Module):
    """What torch's own layers call the weight of a linear layer or a convolution."""
    layers = (nn.Linear, nn.Conv2d)
    due = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, layers)}
    due |= {name for name, _ in network.named_parameters() if name.endswith("in_proj_weight")}
    weights = {id(parameter) for parameter in parameter_groups.weights(network)}
    assert {name for name, parameter in network.named_parameters() if id(parameter) in weights} == due


def test_what_is_frozen_or_named_by_a_part_is_spared():
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(nn.Linear(2, 2).weight.detach())
            self.kernel = nn.Parameter(nn.Linear(2, 2).weight.detach())

        def no_weight_decay(self):
            return ["token"]

    network = nn.Sequential(Part(), nn.Linear(2, 2))
    assert [id(each) for each in parameter_groups.weights(network)] == [id(network[0].kernel), id(network[1].weight)]
    network[1].requires_grad_(False)
    assert [id(each) for each in parameter_groups.weights(network)] == [id(network[0].kernel)]
