from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dubio.training import Digits
from dubio.training.callbacks.learning_curves import Quality, logits


def _ece(probs: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Naeini 2015 in numpy."""
    confidence, right = probs.max(1), probs.argmax(1) == labels
    total = 0.0
    for low in np.arange(bins) / bins:
        inside = (confidence > low) & (confidence <= low + 1 / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(total)


def test_figures_are_those_of_their_definitions():
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(400, 5, generator=generator).mul(2).softmax(-1)
    labels = torch.multinomial(probs.sqrt(), 1, generator=generator).flatten()
    quality = Quality.of(probs, labels)
    assert quality.accuracy == pytest.approx(float((probs.argmax(1) == labels).float().mean()))
    assert quality.nll == pytest.approx(float(F.nll_loss(probs.log(), labels)), rel=1e-5)
    assert quality.ece == pytest.approx(_ece(probs.numpy(), labels.numpy(), bins=15), abs=1e-5)


def test_a_probability_of_zero_costs_much_but_not_infinitely():
    quality = Quality.of(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert 80 < quality.nll < 90
    assert quality.ece == pytest.approx(1.0)


def test_logits_are_those_of_eval_mode_and_modes_stay(network: nn.Module, digits: Digits):
    network.train()
    network.body[0].eval()
    found, labels = logits(network, digits, "validation")
    assert network.training
    assert not network.body[0].training
    x = torch.cat([x for x, _ in digits.val_dataloader()])
    torch.testing.assert_close(found, network.eval()(x).detach())
    assert torch.equal(labels, digits.raw("validation")[1])
