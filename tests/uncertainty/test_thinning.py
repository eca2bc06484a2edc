"""Thinned committees: the same members as with masks, in small matrices, wherever that is possible."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models import MLP, ConvNet
from uncertainty import masks, members
from uncertainty.sites import audit
from uncertainty.thinning import Thinned, thin

K = 7


def _thin(network: nn.Module, x: Tensor, max_weights: int = 10**8) -> tuple[Thinned | None, Tensor]:
    """The thinned committee, and what the plain loop over the masks gives."""
    sites = audit(network, x).sites
    keeps = masks.draw(sites, K, seed=3)
    banks = [masks.scale(keep, site.p, x.dtype, x.device) for site, keep in zip(sites, keeps, strict=True)]
    with torch.inference_mode():
        return thin(network, x, sites, keeps, max_weights), members.loop(network, x, banks)


class Chain(nn.Module):
    """Layers of a chain with what may stand between them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


THINNABLE = {
    "mlp": lambda: MLP(in_features=12, widths=(40, 30, 20), num_classes=4, rates=(0.5, 0.4, 0.3)),
    "one site before the head": lambda: Chain(nn.Linear(12, 30), nn.GELU(), nn.Dropout(0.2), nn.Linear(30, 4)),
    "dropout on the input": lambda: Chain(nn.Dropout(0.3), nn.Linear(12, 30), nn.Tanh(), nn.Linear(30, 4)),
    "no bias": lambda: Chain(
        nn.Linear(12, 30),
        nn.Dropout(0.5),
        nn.Linear(30, 20, bias=False),
        nn.SiLU(),
        nn.Dropout(0.5),
        nn.Linear(20, 4, bias=False),
    ),
    "two linear layers without a site between": lambda: Chain(
        nn.Linear(12, 30),
        nn.Dropout(0.5),
        nn.Linear(30, 20),
        nn.Sigmoid(),
        nn.Linear(20, 25),
        nn.ReLU(),
        nn.ELU(),
        nn.Dropout(0.6),
        nn.Linear(25, 4),
    ),
    "a site that drops everything": lambda: Chain(
        nn.Linear(12, 30), nn.Dropout(1.0), nn.Linear(30, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 4)
    ),
    "a site of rate 0": lambda: Chain(
        nn.Linear(12, 30), nn.Dropout(0.5), nn.Linear(30, 20), nn.Dropout(0.0), nn.ReLU(), nn.Linear(20, 4)
    ),
}


class Skip(nn.Module):
    """A skip connection around a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.dropout(self.first(x), 0.5, self.training)
        return self.head(h + self.second(h))


class Scaled(Skip):
    """Something behind the head."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.head(nn.functional.dropout(self.first(x), 0.5, self.training))


NOT_THINNABLE = {
    "skip connection": Skip,
    "something behind the head": Scaled,
    "layer norm": lambda: Chain(nn.Linear(12, 30), nn.Dropout(0.5), nn.LayerNorm(30), nn.Linear(30, 4)),
    "softmax": lambda: Chain(nn.Linear(12, 30), nn.Dropout(0.5), nn.Linear(30, 4), nn.Softmax(-1)),
    "dropout at the end": lambda: Chain(nn.Linear(12, 30), nn.Dropout(0.5), nn.Linear(30, 4), nn.Dropout(0.1)),
    "two sites in a row": lambda: Chain(nn.Linear(12, 30), nn.Dropout(0.5), nn.Dropout(0.5), nn.Linear(30, 4)),
}


@pytest.mark.parametrize("name", THINNABLE)
@pytest.mark.parametrize("rows", [1, 2, 33])
def test_thinned_members_are_the_masked_ones(name, rows):
    torch.manual_seed(0)
    network = THINNABLE[name]().eval()
    thinned, _ = _thin(network, torch.randn(1, 12))
    x = torch.randn(rows, 12)
    _, expected = _thin(network, x)
    assert thinned is not None
    with torch.inference_mode():
        torch.testing.assert_close(thinned(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NOT_THINNABLE)
def test_what_is_no_chain_is_not_thinned(name):
    torch.manual_seed(0)
    thinned, _ = _thin(NOT_THINNABLE[name]().eval(), torch.randn(3, 12))
    assert thinned is None


def test_spatial_dropout_is_not_thinned():
    thinned, _ = _thin(ConvNet(image_size=8, widths=(4,), rates=(0.2,), dense=8).eval(), torch.randn(2, 1, 8, 8))
    assert thinned is None


def test_a_member_holds_only_what_it_keeps():
    network = MLP(in_features=12, widths=(400, 300), num_classes=4, rates=(0.5, 0.5)).eval()
    thinned, _ = _thin(network, torch.randn(2, 12))
    assert thinned is not None
    weight_KOI = thinned.layers[0][0]
    assert weight_KOI.shape[0] == K
    assert weight_KOI.shape[1] * weight_KOI.shape[2] < 0.35 * 400 * 300  # a quarter, and the padding


def test_too_many_weights_are_not_gathered():
    network = MLP(in_features=12, widths=(40, 30), num_classes=4, rates=(0.5, 0.5)).eval()
    assert _thin(network, torch.randn(2, 12), max_weights=K * (40 * 30 + 30 * 4))[0] is not None
    assert _thin(network, torch.randn(2, 12), max_weights=K * (40 * 30 + 30 * 4) - 1)[0] is None


def test_the_network_is_not_written():
    network = MLP(in_features=12, widths=(40, 30), num_classes=4, rates=(0.5, 0.5)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    thinned, _ = _thin(network, torch.randn(2, 12))
    assert thinned is not None
    with torch.inference_mode():
        x = torch.randn(5, 12)
        kept = x.clone()
        thinned(x)
    assert torch.equal(x, kept)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
