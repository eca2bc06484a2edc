"""Strangers: they have the data's shape and range, and are not the data."""

from __future__ import annotations

import pytest
import torch

from dubio.models import InputSpec
from dubio.training.data.ood import inverted, photograph_patches, uniform_noise

SPEC = InputSpec(kind="image", shape=(1, 8, 8), mean=(5.0,), std=(6.0,), low=0.0, high=16.0)
COLOUR = InputSpec(kind="image", shape=(3, 12, 10), mean=(0.0,) * 3, std=(1.0,) * 3, low=-1.0, high=1.0)


@pytest.mark.parametrize("spec", [SPEC, COLOUR])
@pytest.mark.parametrize("make", [photograph_patches, uniform_noise])
def test_they_fit_the_model_and_its_range(spec, make):
    x = make(spec, 20)
    assert x.shape == (20, *spec.shape)
    assert x.dtype == torch.float32
    assert float(x.min()) >= spec.low
    assert float(x.max()) <= spec.high


@pytest.mark.parametrize("make", [photograph_patches, uniform_noise])
def test_a_seed_repeats_them_and_another_does_not(make):
    assert torch.equal(make(SPEC, 5, seed=1), make(SPEC, 5, seed=1))
    assert not torch.equal(make(SPEC, 5, seed=1), make(SPEC, 5, seed=2))


def test_photographs_are_smooth_and_noise_is_not():
    def roughness(x):
        return float((x[..., 1:] - x[..., :-1]).abs().mean() / x.std())

    assert roughness(photograph_patches(SPEC, 200)) < 0.7 < roughness(uniform_noise(SPEC, 200))


def test_noise_is_uniform_over_the_range():
    x = uniform_noise(SPEC, 2000).flatten()
    assert abs(float(x.mean()) - 8) < 4 * 16 / (12 * len(x)) ** 0.5
    assert abs(float(x.var()) - 16**2 / 12) < 0.5


def test_inverting_twice_changes_nothing():
    x = uniform_noise(SPEC, 3)
    assert torch.allclose(inverted(SPEC, inverted(SPEC, x)), x, atol=1e-5)
    assert torch.equal(inverted(SPEC, torch.zeros(1, 1, 8, 8)), torch.full((1, 1, 8, 8), 16.0))
