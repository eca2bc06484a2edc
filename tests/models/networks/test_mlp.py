from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dubio.models import MLP


def test_default_architecture_is_512_256_128_with_falling_rates():
    layers = [str(layer) for layer in MLP().body]
    assert layers == [
        "Flatten(start_dim=1, end_dim=-1)",
        "Linear(in_features=784, out_features=512, bias=True)",
        "ReLU()",
        "Dropout(p=0.5, inplace=False)",
        "Linear(in_features=512, out_features=256, bias=True)",
        "ReLU()",
        "Dropout(p=0.4, inplace=False)",
        "Linear(in_features=256, out_features=128, bias=True)",
        "ReLU()",
        "Dropout(p=0.3, inplace=False)",
    ]
    assert str(MLP().head) == "Linear(in_features=128, out_features=10, bias=True)"


def test_default_network_has_567_434_parameters():
    assert sum(parameter.numel() for parameter in MLP().parameters()) == 567_434


def test_forward_is_the_textbook_formula_whatever_the_shape_of_an_input():
    network = MLP(in_features=6, widths=(5,), num_classes=3, rates=(0.5,)).eval()
    x = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    hidden = F.relu(x.reshape(4, 6) @ network.body[1].weight.T + network.body[1].bias)
    torch.testing.assert_close(network(x), hidden @ network.head.weight.T + network.head.bias)


def test_in_train_mode_about_the_rates_share_of_units_is_dropped():
    network = MLP(in_features=8, widths=(4000,), num_classes=2, rates=(0.3,)).train()
    nn.init.ones_(network.body[1].weight)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dropped = (network.body(torch.ones(1, 8)) == 0).float().mean()
    assert abs(float(dropped) - 0.3) < 0.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 0}, "`in_features`"),
        ({"widths": ()}, "`widths`"),
        ({"widths": (512, 0, 128)}, "`widths`"),
        ({"num_classes": 0}, "`num_classes`"),
        ({"widths": (512,)}, "`rates` to have one rate for each of 1 layers"),
        ({"rates": (0.5, 0.4, 1.5)}, r"`rates` to be numbers in \[0, 1\]"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        MLP(**arguments)
