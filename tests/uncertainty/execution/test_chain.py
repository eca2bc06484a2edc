"""What is recorded as a chain, and what is not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.uncertainty.dropout.audit import audit
from dubio.uncertainty.dropout.selection import Selection
from dubio.uncertainty.errors import StrategyNotApplicable
from dubio.uncertainty.execution import chain
from dubio.uncertainty.execution.chain import Conv, Function, Layer, Linear, Mask
from tests.uncertainty.chains import CHAINS, NO_CHAINS, built


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_has_every_site_in_order(name):
    case = built(*CHAINS[name])
    layers = case.chain().layers
    sites = [layer.site for layer in layers if isinstance(layer, Mask)]
    assert sites == list(range(len(case.plan.sites)))
    assert isinstance(layers[0], Mask)


def _run(layers: Iterable[Layer], x: Tensor) -> Tensor:
    """What layers give for a batch when nothing is dropped."""
    for layer in layers:
        match layer:
            case Linear():
                x = F.linear(x, layer.weight, layer.bias)
            case Conv():
                assert layer.size == x.shape[2:]
                x = F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation)
            case Function():
                x = layer.call(x)
        if isinstance(layer, Linear | Conv) and layer.relu:
            x = x.relu()
    return x


@pytest.mark.parametrize("name", CHAINS)
def test_the_layers_compute_what_the_network_computes(name):
    case = built(*CHAINS[name])
    recorded = case.chain()
    x = case.inputs(5)
    with torch.inference_mode():
        first = chain.FirstSite(case.plan).activation(x)
        if recorded.prefix is not None:
            torch.testing.assert_close(_run(recorded.prefix, x), first, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(_run(recorded.layers, first), case.network(x), atol=1e-5, rtol=1e-5)


REASONS = {
    "skip connection": "add reads something else",
    "skip over the first site": "add reads something else",
    "a tensor that is read again": "linear reads something else",
    "something behind the head": "mul is no layer",
    "softmax": "softmax is no layer",
    "a gate": "linear reads something else",
    "a bias by hand": "T reads something else",
    "alpha dropout": "the site 1: alpha_dropout.* does not multiply",
    "steps of a sequence": "the site 1: dropout.* does not multiply",
}


@pytest.mark.parametrize("name", NO_CHAINS)
def test_what_is_no_chain_is_refused_with_the_reason(name):
    with pytest.raises(StrategyNotApplicable, match=rf"no chain of layers: .*({REASONS[name]})"):
        built(*NO_CHAINS[name]).chain()


def test_layers_are_what_was_built():
    network = nn.Sequential(
        nn.Conv2d(2, 8, 3, stride=(2, 1), padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout2d(0.5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 2 * 4, 5),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Linear(5, 3),
    ).eval()
    x = torch.randn(2, 2, 8, 8)
    with torch.inference_mode():
        recorded = chain.record(audit(network, x), x)
    assert recorded.prefix is not None
    (conv,) = recorded.prefix
    assert isinstance(conv, Conv)
    assert (conv.stride, conv.padding, conv.size, conv.relu) == ((2, 1), (1, 1), (8, 8), True)
    first, pool, flatten, linear, tanh, second, head = recorded.layers
    assert first == Mask(0, channels=True)
    assert isinstance(pool, Function)
    assert pool.homogeneous
    assert isinstance(flatten, Function)
    assert flatten.columns == 2 * 4
    assert isinstance(linear, Linear)
    assert not linear.relu
    assert isinstance(tanh, Function)
    assert tanh.separate
    assert not tanh.homogeneous
    assert second == Mask(1, channels=True)
    assert isinstance(head, Linear)
    assert head.weight.shape == (3, 5)
    assert recorded.row_numel == 8 * 4 * 8
    assert recorded.num_weights == 8 * 2 * 9 + 8 * 2 * 4 * 5 + 5 * 3


def test_batch_norm_is_fused_into_the_layer_before_it():
    # By hand: y = gamma (w x + b - mean) / sqrt(var + eps) + beta.
    layer, norm = nn.Linear(1, 1), nn.BatchNorm1d(1, eps=0.5)
    with torch.no_grad():
        for parameter, value in (
            (layer.weight, 3.0),
            (layer.bias, 1.0),
            (norm.running_mean, 2.0),
            (norm.running_var, 3.5),
            (norm.weight, 4.0),
            (norm.bias, 5.0),
        ):
            parameter.fill_(value)
    network = nn.Sequential(nn.Dropout(0.5), layer, norm).eval()
    x = torch.randn(2, 1)
    with torch.inference_mode():
        recorded = chain.record(audit(network, x), x)
    _, fused = recorded.layers
    assert isinstance(fused, Linear)
    assert fused.bias is not None
    assert (fused.weight.item(), fused.bias.item()) == (4 * 3 / 2, 4 * (1 - 2) / 2 + 5)


def test_sites_that_are_left_out_are_not_in_the_chain():
    network = nn.Sequential(
        nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
    ).eval()
    x = torch.randn(2, 4)
    with torch.inference_mode():
        recorded = chain.record(audit(network, x, Selection(("4",))), x)
    assert [type(layer) for layer in recorded.prefix or ()] == [Linear, Linear]
    assert [type(layer) for layer in recorded.layers] == [Mask, Linear]
