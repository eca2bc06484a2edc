"""DropConnect against its closed form."""

from __future__ import annotations

import pytest
import torch

from dubio.models import DropConnectLinear, DropConnectMLP
from tests.quick import quick_committee


def test_without_training_it_is_a_linear_layer():
    layer = DropConnectLinear(5, 3, rate=0.7).eval()
    x = torch.randn(4, 5)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))


def test_mean_and_variance_in_training_are_the_closed_form():
    torch.manual_seed(0)
    layer, rate, draws = DropConnectLinear(6, 3, rate=0.3).double(), 0.3, 20_000
    x = torch.randn(1, 6, dtype=torch.float64)
    drawn = torch.stack([layer(x)[0] for _ in range(draws)]).detach()
    mean = layer.eval()(x)[0].detach()
    variance = rate / (1 - rate) * (layer.weight * x).square().sum(-1).detach()
    z_mean = (drawn.mean(0) - mean) / (variance / draws).sqrt()
    # The variance of a sample variance of about normal values is 2 sigma^4 / n; these are bounded, so it is less.
    z_variance = (drawn.var(0) - variance) / (variance * (2 / draws) ** 0.5)
    assert float(z_mean.abs().max()) < 4.5
    assert float(z_variance.abs().max()) < 4.5


def test_members_of_a_committee_have_that_variance():
    torch.manual_seed(0)
    network = torch.nn.Sequential(DropConnectLinear(6, 4, rate=0.4)).eval()
    x = torch.randn(2, 6)
    logits_KBC = quick_committee(network, x, num_samples=4000, seed=1)(x)
    weight = network[0].weight.detach()
    variance_BC = 0.4 / 0.6 * (weight * x.unsqueeze(1)).square().sum(-1)
    torch.testing.assert_close(logits_KBC.var(0), variance_BC, rtol=0.12, atol=1e-6)
    torch.testing.assert_close(
        logits_KBC.mean(0), network(x).detach(), rtol=0, atol=4.5 * (variance_BC.max() / 4000) ** 0.5
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"rates": (0.5,)}, "rates"),
        ({"rates": (0.5, 1.5)}, "rates"),
        ({"widths": ()}, "widths"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_wrong_arguments_are_named(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        DropConnectMLP(**arguments)


def test_a_wrong_rate_of_a_layer_is_named():
    with pytest.raises(ValueError, match="rate"):
        DropConnectLinear(2, 2, rate=-0.1)


def test_its_members_vary_and_what_is_printed_says_the_rate():
    network = DropConnectMLP(in_features=4, widths=(8, 8), num_classes=3).eval()
    committee = quick_committee(network, torch.randn(1, 2, 2), num_samples=8)
    assert [site.shape for site in committee.sites] == [(8, 4), (8, 8)]
    assert "rate=0.5" in str(network)
