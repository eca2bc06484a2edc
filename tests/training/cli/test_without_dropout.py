from __future__ import annotations

import pytest
import torch
from torch import nn

from models import MLP, ConvNet, DropConnectMLP, RecurrentNet, ResNet, TransformerNet
from training.cli.without_dropout import switch_off


class Stock(nn.Module):
    """Torch's recurrent layer, whose dropout is no module."""

    def __init__(self, p: float):
        super().__init__()
        self.layers = nn.LSTM(8, 6, num_layers=2, dropout=p, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x.flatten(1, 2))[0][:, -1])


CASES = [
    (lambda p: MLP(in_features=64, widths=[9], rates=[p])),
    (lambda p: ConvNet(image_size=8, widths=[4], rates=[p], dense=8, dense_rate=p)),
    (lambda p: ResNet(widths=[4, 6], blocks=1, rate=p, head_rate=p)),
    (lambda p: DropConnectMLP(in_features=64, widths=[9], rates=[p])),
    (lambda p: RecurrentNet(8, 6, input_rate=p, recurrent_rate=p, output_rate=p)),
    (lambda p: TransformerNet(8, 8, width=8, layers=2, heads=2, rate=p, head_rate=p)),
    Stock,
]


@pytest.mark.parametrize("build", CASES, ids=lambda build: type(build(0.5)).__name__)
def test_logits_and_gradients_in_training_are_those_of_rates_of_zero(build) -> None:
    torch.manual_seed(0)
    network, due = build(0.5).train(), build(0.0).train()
    due.load_state_dict(network.state_dict())
    x = torch.randn(4, 1, 8, 8)
    dropped = network(x)
    switch_off(network)
    whole = network(x)
    assert not torch.allclose(dropped, whole)
    torch.testing.assert_close(whole, due(x), rtol=1e-4, atol=1e-5)
    network.zero_grad()
    whole.square().sum().backward()
    due(x).square().sum().backward()
    for (name, mine), theirs in zip(network.named_parameters(), due.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_a_pass_that_fails_leaves_others_dropout_on() -> None:
    network = MLP(in_features=4, widths=[3], rates=[0.5]).train()
    switch_off(network)
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 5))
    torch.manual_seed(0)
    assert (nn.Dropout(0.5)(torch.ones(100)) == 0).any()
