from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from dubio.models import DirectDropout, LockedDropout
from tests.quick import quick_committee


def test_a_feature_is_dropped_at_every_step_or_at_none():
    torch.manual_seed(0)
    x = torch.rand(200, 7, 50) + 1
    factors = LockedDropout(0.3).train()(x) / x
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    kept = factors[:, 0] != 0
    torch.testing.assert_close(factors[:, 0][kept], torch.full((int(kept.sum()),), 1 / 0.7))
    # 10000 draws: the share that is dropped has the standard deviation sqrt(.3 * .7 / 10000) = .0046.
    assert abs(float((~kept).float().mean()) - 0.3) < 4.5 * 0.0046
    assert len({tuple(row) for row in kept.tolist()}) == 200


def test_in_eval_mode_it_does_nothing():
    x = torch.randn(2, 3, 4)
    assert torch.equal(LockedDropout(0.5).eval()(x), x)


def test_a_wrong_rate_is_named():
    with pytest.raises(ValueError, match="`p` to be numbers"):
        LockedDropout(1.5)
    assert str(LockedDropout(0.25)) == "LockedDropout(p=0.25)"


UNITS, RATE = 8, 0.4


def _expectation(values: torch.Tensor, weight: torch.Tensor, survivor: float) -> torch.Tensor:
    """What a linear layer behind dropout gets in the mean over all masks, each with its probability."""
    total = torch.zeros(len(weight), dtype=values.dtype)
    for mask in product((0.0, 1.0), repeat=UNITS):
        kept = sum(mask)
        probability = (1 - RATE) ** kept * RATE ** (UNITS - kept)
        total += probability * weight @ (values * torch.tensor(mask, dtype=values.dtype) * survivor)
    return total


def test_direct_and_inverted_dropout_agree_in_expectation():
    """Each form's answer in eval mode is exactly its own mean over all 256 masks in training."""
    torch.manual_seed(0)
    values, weight = torch.rand(UNITS, dtype=torch.float64), torch.randn(3, UNITS, dtype=torch.float64)
    direct, inverted = DirectDropout(RATE).eval(), nn.Dropout(RATE).eval()
    torch.testing.assert_close(weight @ direct(values), _expectation(values, weight, survivor=1))
    torch.testing.assert_close(weight @ inverted(values), _expectation(values, weight, survivor=1 / (1 - RATE)))
    # The two are the same network once the weights behind are divided by 1 - p.
    torch.testing.assert_close(weight / (1 - RATE) @ direct(values), weight @ inverted(values))


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 1.0])
def test_in_training_survivors_are_left_as_they_are(rate: float):
    values = torch.rand(1000, dtype=torch.float64) + 1
    torch.manual_seed(1)
    direct = DirectDropout(rate).train()(values)
    torch.manual_seed(1)
    inverted = nn.Dropout(rate).train()(values)
    torch.testing.assert_close(direct, torch.where(inverted == 0, 0.0, values))
    assert abs(float((direct == 0).double().mean()) - rate) < 4.5 * (rate * (1 - rate) / 1000) ** 0.5 + 1e-9


def test_hundred_becomes_sixty_and_hundred_again():
    """Of 100 units that are 1, a keep probability of .6 leaves a sum of about 60; dividing by .6 makes it 100."""
    ones, draws = torch.ones(20_000, 100), 20_000
    torch.manual_seed(2)
    direct = DirectDropout(0.4).train()(ones).sum(1)
    torch.manual_seed(2)
    inverted = nn.Dropout(0.4).train()(ones).sum(1)
    # The sum of survivors is binomial: standard deviation sqrt(100 * .6 * .4) = 4.9 a draw.
    error = (100 * 0.6 * 0.4 / draws) ** 0.5
    assert abs(float(direct.mean()) - 60) < 4.5 * error
    assert abs(float(inverted.mean()) - 100) < 4.5 * error / 0.6
    torch.testing.assert_close(DirectDropout(0.4).eval()(ones[:1]).sum(), torch.tensor(60.0))
    torch.testing.assert_close(nn.Dropout(0.4).eval()(ones[:1]).sum(), torch.tensor(100.0))


def test_members_of_a_committee_drop_as_in_training():
    torch.manual_seed(0)
    network = nn.Sequential(DirectDropout(RATE), nn.Linear(UNITS, 3)).eval()
    x = torch.rand(2, UNITS)
    logits_KBC = quick_committee(network, x, num_samples=4000, seed=1)(x)
    # Survivors keep their size: Var = p (1 - p) sum (w x)^2, where inverted dropout has p / (1 - p).
    weight = network[1].weight.detach()
    variance_BC = RATE * (1 - RATE) * (weight * x.unsqueeze(1)).square().sum(-1)
    torch.testing.assert_close(logits_KBC.var(0), variance_BC, rtol=0.12, atol=1e-6)
    error = 4.5 * float((variance_BC.max() / 4000) ** 0.5)
    torch.testing.assert_close(logits_KBC.mean(0), network(x).detach(), rtol=0, atol=error)


def test_a_wrong_rate_of_direct_dropout_is_named():
    with pytest.raises(ValueError, match="`p` to be numbers"):
        DirectDropout(-0.1)
    assert str(DirectDropout(0.25)) == "DirectDropout(p=0.25)"
