"""Dropout between recurrent layers: every element of every time step on its own, as torch drops them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dubio.uncertainty.errors import UnsupportedNetwork, UnsupportedSite
from tests.quick import quick_committee

L, F, W = 5, 3, 4
KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Recurrent(nn.Module):
    """A stock recurrent layer and a head on all its outputs and final states."""

    def __init__(self, kind: str, **options: object) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = KINDS[kind](F, W, **options)
        layer = self.layer
        width = (layer.proj_size or W) * (2 if layer.bidirectional else 1)
        states = layer.num_layers * (2 if layer.bidirectional else 1) * (layer.proj_size or W)
        self.head = nn.Linear(L * width + states, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.layer.batch_first
        outputs, state = self.layer(x if first else x.transpose(0, 1))
        state = state[0] if isinstance(state, tuple) else state
        outputs = outputs if first else outputs.transpose(0, 1)
        return self.head(torch.cat([outputs.flatten(1), state.transpose(0, 1).flatten(1)], dim=1))


def _single(layer: nn.RNNBase) -> list[nn.RNNBase]:
    """The same layer as a stack of layers of one, each with its own share of the weights."""
    stack = []
    for index in range(layer.num_layers):
        directions = 2 if layer.bidirectional else 1
        inputs = layer.input_size if index == 0 else (layer.proj_size or layer.hidden_size) * directions
        options = {"proj_size": layer.proj_size} if layer.proj_size else {}
        if isinstance(layer, nn.RNN):
            options["nonlinearity"] = layer.nonlinearity
        one = type(layer)(inputs, W, bias=layer.bias, batch_first=True, bidirectional=layer.bidirectional, **options)
        names = [name for name in layer.state_dict() if f"_l{index}" in name]
        one.load_state_dict({name.replace(f"_l{index}", "_l0"): layer.state_dict()[name] for name in names})
        stack.append(one)
    return stack


def _expected(network: Recurrent, x: Tensor, factors: list[Tensor]) -> Tensor:
    """One member, from single layers and masks ``[L, W]`` between them."""
    states = []
    for index, layer in enumerate(_single(network.layer)):
        x, state = layer(x if index == 0 else x * factors[index - 1])
        states.append(state[0] if isinstance(state, tuple) else state)
    return network.head(torch.cat([x.flatten(1), torch.cat(states).transpose(0, 1).flatten(1)], dim=1))


VARIANTS = [
    ("lstm", {"num_layers": 3, "batch_first": True}),
    ("lstm", {"num_layers": 2, "batch_first": False, "bidirectional": True}),
    ("lstm", {"num_layers": 2, "batch_first": True, "proj_size": 2, "bias": False}),
    ("gru", {"num_layers": 3, "batch_first": True, "bidirectional": True}),
    ("gru", {"num_layers": 2, "batch_first": False}),
    ("rnn", {"num_layers": 2, "batch_first": True}),
    ("rnn", {"num_layers": 2, "batch_first": True, "nonlinearity": "relu"}),
]


def _id(value: object) -> str:
    return value if isinstance(value, str) else "-".join(f"{name}={each}" for name, each in value.items())


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=_id)
def test_members_are_single_layers_with_masks_between_them(kind, options, keeps):
    network = Recurrent(kind, dropout=0.3, **options).eval()
    x = torch.randn(4, L, F)
    plain = network(x)
    committee = quick_committee(network, x[:1], num_samples=6)
    width = (network.layer.proj_size or W) * (2 if network.layer.bidirectional else 1)
    assert [(site.kind, site.p, site.shape) for site in committee.sites] == [(kind, 0.3, (L, width))] * (
        options["num_layers"] - 1
    )
    assert committee.sites[0].name == "layer.layer0"
    assert committee.strategy == "fold"
    factors = [keep / 0.7 for keep in keeps(committee)]
    with torch.no_grad():
        expected = torch.stack([_expected(network, x, [each[k] for each in factors]) for k in range(6)])
    for rows in (slice(0, 1), slice(0, 4), slice(2, 4)):
        torch.testing.assert_close(committee(x[rows]), expected[:, rows], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(committee(x, 2, 3), expected[3:5], rtol=1e-5, atol=1e-5)
    small = quick_committee(network, x[:1], num_samples=6, memory_budget=1)
    torch.testing.assert_close(small(x), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(network(x), plain)


@pytest.mark.parametrize(("kind", "options"), [VARIANTS[0], VARIANTS[3], VARIANTS[5]], ids=_id)
def test_members_are_distributed_as_in_training(kind, options, in_training, distributed_alike):
    network, x = Recurrent(kind, dropout=0.4, **options).eval(), torch.randn(1, L, F)
    distributed_alike(quick_committee(network, x, num_samples=4000)(x)[:, 0], in_training(network, x, 4000))


def test_a_layer_alone_has_no_dropout(keeps):
    network = nn.Sequential(nn.Flatten(), nn.Linear(L * F, 6), nn.Dropout(0.5), nn.Unflatten(1, (2, 3)))
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
        network.append(Recurrent("lstm", dropout=0.5, batch_first=True))
    network[-1].head = nn.Linear(2 * W + W, 3)
    assert [site.kind for site in quick_committee(network.eval(), torch.randn(1, L, F), num_samples=3).sites] == [
        "dropout"
    ]


def test_shorter_sequences_use_the_first_part_of_each_mask(keeps):
    class Last(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x)[0][:, -1])

    network = Last("lstm", num_layers=2, dropout=0.3, batch_first=True)
    network.head = nn.Linear(W, 3)
    network.eval()
    committee = quick_committee(network, torch.randn(1, L, F), num_samples=4)
    first, second = _single(network.layer)
    x = torch.randn(3, 2, F)
    factors = keeps(committee)[0][:, :2] / 0.7
    with torch.no_grad():
        expected = torch.stack([network.head(second(first(x)[0] * each)[0][:, -1]) for each in factors])
    torch.testing.assert_close(committee(x), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UnsupportedNetwork, match=r"at most \[5, 4\] a row.*layer.layer0.*largest input"):
        committee(torch.randn(3, L + 1, F))


class Packed(nn.Module):
    """Tokens, 0 where padded, through packed sequences."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.embed, self.layer = nn.Embedding(7, F), KINDS[kind](F, W, 2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(W, 3)

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x != 0).sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(self.embed(x), lengths, batch_first=True, enforce_sorted=False)
        return self.head(pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0].sum(1))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_packed_sequences_are_masked_by_time_step(kind, keeps):
    network = Packed(kind).eval()
    x = torch.tensor([[1, 2, 3, 4, 5], [6, 5, 0, 0, 0], [2, 2, 2, 0, 0], [3, 0, 0, 0, 0]])
    committee = quick_committee(network, x[:1], num_samples=5)
    assert [(site.kind, site.shape) for site in committee.sites] == [(kind, (L, W))]
    first, second = _single(network.layer)
    for row, length in zip(x, (5, 2, 3, 1), strict=True):
        embedded = network.embed(row[None, :length])
        factors = keeps(committee)[0][:, :length] / 0.7
        with torch.no_grad():
            expected = torch.stack([network.head(second(first(embedded)[0] * each)[0].sum(1)) for each in factors])
        torch.testing.assert_close(committee(row[None]), expected, rtol=1e-5, atol=1e-5)
    alone = torch.cat([committee(row[None]) for row in x], dim=1)
    torch.testing.assert_close(committee(x), alone, rtol=1e-5, atol=1e-5)


def test_packed_sequences_are_distributed_as_in_training(in_training, distributed_alike):
    network, x = Packed("lstm").eval(), torch.tensor([[1, 2, 3, 0, 0]])
    full = torch.tensor([[1, 2, 3, 4, 5]])
    distributed_alike(quick_committee(network, full, num_samples=3000)(x)[:, 0], in_training(network, x, 3000))


def test_a_layer_that_drops_out_in_eval_mode_is_refused():
    class Always(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            weights = list(self.layer.parameters())
            outputs, state = torch.gru(x, x.new_zeros(2, len(x), W), weights, True, 2, 0.25, True, False, True)
            return self.head(torch.cat([outputs.flatten(1), state.transpose(0, 1).flatten(1)], dim=1))

    network = Always("gru", num_layers=2, batch_first=True).eval()
    with pytest.raises(UnsupportedSite, match=r"gru.*p=0\.25.*deterministic prediction would be random"):
        quick_committee(network, torch.randn(1, L, F))


def test_the_layer_is_left_alone():
    network = Recurrent("lstm", num_layers=2, dropout=0.3, batch_first=True).eval()
    before = copy.deepcopy(network.state_dict())
    committee = quick_committee(network, torch.randn(1, L, F), num_samples=4)
    first, again = committee(torch.ones(2, L, F)), committee(torch.ones(2, L, F))
    assert torch.equal(first, again)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not network.training
    assert not network.layer.training
