"""The recurrent network against torch's own layers."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from dubio.models import RecurrentNet
from dubio.uncertainty.execution import masks
from tests.quick import quick_committee

WEIGHTS = ("layers.0.0.from_input.weight", "layers.0.0.from_state.weight", "head.weight")


def _as_torch(network: RecurrentNet, layer: type, features: int, width: int) -> torch.nn.Module:
    """Torch's own layer with the network's weights."""
    both = len(network.layers[0]) == 2
    reference = layer(features, width, len(network.layers), batch_first=True, bidirectional=both)
    weights = {}
    for index, directions_ in enumerate(network.layers):
        for reader, suffix in zip(directions_, ("", "_reverse"), strict=False):
            weights[f"weight_ih_l{index}{suffix}"] = reader.from_input.weight
            weights[f"bias_ih_l{index}{suffix}"] = reader.from_input.bias
            weights[f"weight_hh_l{index}{suffix}"] = reader.from_state.weight
            weights[f"bias_hh_l{index}{suffix}"] = reader.from_state.bias
    reference.load_state_dict(weights)
    return reference


def _last(reference: torch.nn.Module, x: torch.Tensor | PackedSequence) -> torch.Tensor:
    """The top layer's last states, of both directions if there are two."""
    states = reference(x)[1]
    states = states[0] if isinstance(states, tuple) else states
    return torch.cat(list(states[-2:] if reference.bidirectional else states[-1:]), dim=-1)


@pytest.mark.parametrize(("cell", "layer"), [("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)])
@pytest.mark.parametrize(("layers", "both"), [(1, False), (1, True), (3, False), (2, True)])
def test_without_dropout_it_is_torchs_layer(cell: str, layer: type, layers: int, both: bool) -> None:
    torch.manual_seed(0)
    network = RecurrentNet(features=5, width=7, cell=cell, layers=layers, bidirectional=both, num_classes=3).eval()
    x = torch.randn(4, 11, 5)
    torch.testing.assert_close(network(x), network.head(_last(_as_torch(network, layer, 5, 7), x)))
    torch.testing.assert_close(network(x.unsqueeze(1)), network(x))


@pytest.mark.parametrize(("cell", "layer"), [("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)])
@pytest.mark.parametrize("both", [False, True])
def test_padded_sequences_are_torchs_packed_ones(cell: str, layer: type, both: bool) -> None:
    torch.manual_seed(0)
    network = RecurrentNet(5, 7, cell, layers=2, bidirectional=both, padding=-1.0, num_classes=3).eval()
    lengths = [11, 3, 1, 8]
    x = torch.randn(4, 11, 5)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = -1
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    torch.testing.assert_close(network(x), network.head(_last(_as_torch(network, layer, 5, 7), packed)))


def test_tokens_are_their_embeddings_and_padding_behind_or_before_changes_nothing() -> None:
    torch.manual_seed(0)
    network = RecurrentNet(features=5, width=7, vocabulary=10, padding=0, num_classes=3).eval()
    tokens = torch.tensor([[4, 9, 2]])
    reference = _as_torch(network, torch.nn.LSTM, 5, 7)
    due = network.head(_last(reference, network.steps.table(tokens)))
    for padded in ([4, 9, 2, 0, 0], [0, 0, 4, 9, 2], [4, 0, 9, 0, 2]):
        torch.testing.assert_close(network(torch.tensor([padded])), due)
        torch.testing.assert_close(network(torch.tensor([padded], dtype=torch.float32)), due)


def test_members_of_a_padded_network_are_asked_about_each_length() -> None:
    torch.manual_seed(0)
    network = RecurrentNet(4, 6, layers=2, bidirectional=True, padding=0.0, num_classes=3).eval()
    x = torch.randn(2, 9, 4)
    committee = quick_committee(network, x, num_samples=6)
    padded = x.clone()
    padded[:, 5:] = 0
    torch.testing.assert_close(committee(padded), committee(padded[:, :5]))
    assert [site.shape for site in committee.sites] == [(4,), (6,), (4,), (6,), (12,), (6,), (12,), (6,), (12,)]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_mask_is_the_same_at_all_steps(cell: str) -> None:
    """A member is the deterministic network with columns of its weights struck out and the rest scaled."""
    torch.manual_seed(0)
    rates = {"input_rate": 0.4, "recurrent_rate": 0.5, "output_rate": 0.3}
    network = RecurrentNet(features=6, width=8, cell=cell, num_classes=3, **rates).eval()
    x = torch.randn(3, 9, 6)
    committee = quick_committee(network, x, num_samples=5, seed=3)
    logits_KBC = committee(x)
    assert [site.shape for site in committee.sites] == [(6,), (8,), (8,)]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for member, keeps in enumerate(zip(*masks.draw(committee.sites, 5, seed=3), strict=True)):
        for name, keep, rate in zip(WEIGHTS, keeps, rates.values(), strict=True):
            network.get_parameter(name).data.copy_(state[name] * keep.flatten() / (1 - rate))
        torch.testing.assert_close(logits_KBC[member], network(x).detach(), rtol=1e-5, atol=1e-5)
        network.load_state_dict(state)


def test_in_training_each_sequence_has_masks_of_its_own() -> None:
    torch.manual_seed(0)
    network = RecurrentNet(features=4, width=16, recurrent_rate=0.5).train()
    logits_BC = network(torch.randn(1, 5, 4).expand(6, -1, -1))
    assert len({tuple(row) for row in logits_BC.tolist()}) == 6


@pytest.mark.parametrize(
    "arguments",
    [{"cell": "rnn"}, {"input_rate": 2.0}, {"recurrent_rate": -1.0}, {"width": 0}, {"layers": 0}, {"vocabulary": -1}],
)
def test_wrong_arguments_are_named(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        RecurrentNet(**arguments)
