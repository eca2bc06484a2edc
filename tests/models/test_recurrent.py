"""The recurrent network against torch's own layers."""

from __future__ import annotations

import pytest
import torch

from models import RecurrentNet
from uncertainty import Committee


@pytest.mark.parametrize(("cell", "layer"), [("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)])
def test_without_dropout_it_is_torchs_layer(cell: str, layer: type) -> None:
    torch.manual_seed(0)
    network = RecurrentNet(features=5, width=7, cell=cell, num_classes=3).eval()
    reference = layer(5, 7, batch_first=True)
    reference.load_state_dict(
        {
            "weight_ih_l0": network.from_input.weight,
            "bias_ih_l0": network.from_input.bias,
            "weight_hh_l0": network.from_state.weight,
            "bias_hh_l0": network.from_state.bias,
        }
    )
    x = torch.randn(4, 11, 5)
    torch.testing.assert_close(network(x), network.head(reference(x)[0][:, -1]))
    torch.testing.assert_close(network(x.unsqueeze(1)), network(x))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_mask_is_the_same_at_all_steps(cell: str) -> None:
    """A member is the deterministic network with columns of its weights struck out and the rest scaled."""
    torch.manual_seed(0)
    rates = {"input_rate": 0.4, "recurrent_rate": 0.5, "output_rate": 0.3}
    network = RecurrentNet(features=6, width=8, cell=cell, num_classes=3, **rates).eval()
    x = torch.randn(3, 9, 6)
    committee = Committee(network, x, num_samples=5, seed=3)
    logits_KBC = committee(x)
    assert [site.shape for site in committee.sites] == [(6,), (8,), (8,)]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for member, masks in enumerate(zip(*committee._banks, strict=True)):
        for name, mask in zip(("from_input.weight", "from_state.weight", "head.weight"), masks, strict=True):
            network.get_parameter(name).data.copy_(state[name] * mask.flatten())
        torch.testing.assert_close(logits_KBC[member], network(x).detach(), rtol=1e-5, atol=1e-5)
        network.load_state_dict(state)


def test_in_training_each_sequence_has_masks_of_its_own() -> None:
    torch.manual_seed(0)
    network = RecurrentNet(features=4, width=16, recurrent_rate=0.5).train()
    logits_BC = network(torch.randn(1, 5, 4).expand(6, -1, -1))
    assert len({tuple(row) for row in logits_BC.tolist()}) == 6


@pytest.mark.parametrize("arguments", [{"cell": "rnn"}, {"input_rate": 2.0}, {"recurrent_rate": -1.0}, {"width": 0}])
def test_wrong_arguments_are_named(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        RecurrentNet(**arguments)
