"""Pictures show what they are given: the bytes depend on the numbers alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dubio.models import InputSpec
from dubio.training.report import pictures
from dubio.training.report.acceptance_resplits import AcceptanceResplits
from dubio.training.report.content import Settled
from dubio.training.report.resplits import resplit


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def test_the_same_numbers_give_the_same_bytes_and_others_give_others():
    settled = [Settled(members=members, mean=1 / members, std=2 / members) for members in (2, 4, 8)]
    assert pictures.settling(settled) == pictures.settling(settled)
    assert pictures.settling(settled) != pictures.settling(settled[1:])
    assert b"Software" not in pictures.settling(settled)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_are_shown_as_they_are(channels: int):
    spec = InputSpec(
        kind="image", shape=(channels, 4, 4), mean=(0.0,) * channels, std=(1.0,) * channels, low=-1.0, high=3.0
    )
    dark, light = torch.full((1, channels, 4, 4), -1.0), torch.full((1, channels, 4, 4), 3.0)
    one, other = _pixels(pictures.images(dark, spec)), _pixels(pictures.images(light, spec))
    assert (one < 10).mean() > 0.1  # a sixth of the picture
    assert (other < 10).mean() < 0.01


def test_resplits_are_drawn_where_the_law_has_its_mass():
    drawn = resplit(np.random.default_rng(0).normal(size=400), 200, 0.05, 0.05, count=30)
    assert Image.open(io.BytesIO(pictures.resplits(drawn, 0.05))).size == (800, 320)


def test_errors_of_accepted_rows_are_drawn_for_each_risk():
    all_, counts = np.ones(10, dtype=bool), np.full(10, 50)
    few = AcceptanceResplits(100, 60, all_, ~all_, counts, counts // 50, all_)
    many = AcceptanceResplits(100, 60, all_, all_, counts, counts // 5, ~all_)
    one, other = pictures.acceptance([(0.05, few)]), pictures.acceptance([(0.05, many)])
    assert one == pictures.acceptance([(0.05, few)])
    assert len({one, other, pictures.acceptance([(0.05, few), (0.1, many)])}) == 3
