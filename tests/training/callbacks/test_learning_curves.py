from __future__ import annotations

import torch
from torch import nn

from dubio.training import Digits
from dubio.training.callbacks.learning_curves import logits


def test_logits_are_those_of_eval_mode_and_modes_stay(network: nn.Module, digits: Digits):
    network.train()
    network.body[0].eval()
    logits_BC, labels = logits(network, digits, "validation")
    assert network.training
    assert not network.body[0].training
    x = torch.cat([x for x, _ in digits.val_dataloader()])
    torch.testing.assert_close(logits_BC, network.eval()(x).detach())
    assert torch.equal(labels, digits.raw("validation")[1])
