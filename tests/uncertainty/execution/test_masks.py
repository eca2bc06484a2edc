"""Masks are Bernoulli draws from a generator of their own."""

from __future__ import annotations

import math

import pytest
import torch

from dubio.uncertainty.dropout.sites import Site
from dubio.uncertainty.execution import masks

CPU = torch.device("cpu")


@pytest.mark.parametrize("p", [0.01, 0.1, 0.3, 0.5, 0.9])
def test_units_are_kept_with_probability_one_minus_p(p):
    (keep,) = masks.draw([Site("dropout", p, (1000,))], num_samples=200, seed=3)
    z = (keep.double().mean() - (1 - p)) / math.sqrt(p * (1 - p) / keep.numel())
    assert abs(float(z)) < 4
    # Neither a member nor a unit is favoured: their counts scatter as binomial ones do (chi-square, normalised).
    for axis, trials in ((1, 1000), (0, 200)):
        counts = keep.double().sum(axis)
        chi = (counts - trials * (1 - p)).square().sum() / (trials * p * (1 - p))
        degrees = len(counts)
        assert abs(float(chi) - degrees) < 5 * math.sqrt(2 * degrees + degrees / (trials * p * (1 - p)))


def test_members_and_sites_are_independent():
    first, second = masks.draw([Site("dropout", 0.5, (5000,))] * 2, num_samples=8, seed=0)
    draws = torch.cat([first, second]).double()
    correlation = torch.corrcoef(draws).fill_diagonal_(0)
    assert correlation.abs().max() < 5 / math.sqrt(5000)


def test_rates_of_zero_and_one():
    everything, nothing = masks.draw([Site("dropout", 0.0, (99,)), Site("dropout", 1.0, (99,))], 50, seed=0)
    assert everything.all()
    assert not nothing.any()
    zeros = masks.scale(nothing, 1.0, torch.float32, CPU)
    assert torch.equal(zeros, torch.zeros(50, 99))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_kept_units_are_scaled_up_and_dropped_ones_are_zero(p):
    keep = torch.tensor([[True, False]])
    scaled = masks.scale(keep, p, torch.float64, CPU)
    assert scaled.tolist() == [[1 / (1 - p), 0.0]]
    assert masks.scale(keep, p, torch.float32, CPU).dtype == torch.float32


@pytest.mark.parametrize("shape", [(7,), (4, 1), (4, 1, 1), (2, 3)])
def test_one_mask_a_member_in_the_sites_shape(shape):
    (keep,) = masks.draw([Site("dropout", 0.5, shape)], num_samples=5, seed=0)
    assert keep.shape == (5, *shape)
    assert keep.dtype == torch.bool


def test_the_seed_alone_decides():
    sites = [Site("dropout", 0.5, (64,)), Site("dropout2d", 0.2, (8, 1, 1))]
    torch.manual_seed(1)
    first = masks.draw(sites, 16, seed=5)
    torch.manual_seed(2)
    again = masks.draw(sites, 16, seed=5)
    other = masks.draw(sites, 16, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_fingerprint_sees_everything_that_makes_a_committee():
    site = Site("dropout", 0.5, (16,))
    (keep,) = masks.draw([site], 4, seed=0)
    flipped = keep.clone()
    flipped[3, 15] = ~flipped[3, 15]
    seen = {
        masks.fingerprint([site], [keep]),
        masks.fingerprint([site], [flipped]),
        masks.fingerprint([site], [keep[:3]]),
        masks.fingerprint([site], [keep.reshape(4, 4, 4)]),
        masks.fingerprint([Site("dropout", 0.25, (16,))], [keep]),
        masks.fingerprint([Site("dropout1d", 0.5, (16,))], [keep]),
        masks.fingerprint([site, site], [keep, keep]),
    }
    assert len(seen) == 7
    assert masks.fingerprint([site], [keep.clone()]) in seen


def test_a_seed_draws_the_same_committee_for_ever():
    # Checkpoints hold a seed and this hash, not the masks: were the draw to change, none would load any more.
    sites = [Site("dropout", 0.5, (16,)), Site("dropout2d", 0.25, (3, 1, 1))]
    golden = "ad3b7ad8e5133ea634aaa94ea5ce36b4f865317ea481d486e8f20262c96dd7a0"
    assert masks.fingerprint(sites, masks.draw(sites, num_samples=8, seed=42)) == golden


def test_factors_lie_on_the_device_that_serves():
    # The meta device holds no numbers, but says where a tensor lies.
    (keep,) = masks.draw([Site("dropout", 0.5, (4,))], 2, seed=0)
    assert keep.device == CPU
    assert masks.scale(keep, 0.5, torch.float32, torch.device("meta")).is_meta
