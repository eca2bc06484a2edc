"""Masks where they belong, and what cannot be done with them."""

from __future__ import annotations

import pytest
import torch

from dubio.uncertainty.dropout.function_mode import Call
from dubio.uncertainty.dropout.sites import PlannedCall, Site, alpha_scale
from dubio.uncertainty.errors import StrategyNotApplicable, UnsupportedNetwork


def _planned(kind: str, shape: tuple[int, ...], axis: int | None = 0, **options: object) -> PlannedCall:
    return PlannedCall(kind, 0.5, Site(kind, 0.5, shape, "drop", axis), shape, torch.float32, **options)


def test_folded_members_get_their_own_masks():
    x, mask = torch.arange(1.0, 13).view(6, 2), torch.tensor([[0.0, 2.0], [2.0, 0.0], [2.0, 2.0]])
    dropped = _planned("dropout", (2,)).apply(Call("dropout", x, 0.5), mask, 2, 3)
    assert dropped.tolist() == [[0, 4], [0, 8], [10, 0], [14, 0], [18, 20], [22, 24]]


def test_a_mask_takes_the_precision_of_the_activation():
    x = torch.ones(2, 2, dtype=torch.bfloat16)
    dropped = _planned("dropout", (2,)).apply(Call("dropout", x, 0.5), torch.tensor([0.0, 2.0]), 2)
    assert dropped.dtype == torch.bfloat16
    assert dropped.tolist() == [[0, 2], [0, 2]]


def test_channels_are_dropped_at_any_size_up_to_the_audited():
    planned = PlannedCall("dropout2d", 0.5, Site("dropout2d", 0.5, (2, 1, 1), "drop"), (2, 3, 3), torch.float32)
    mask = torch.tensor([0.0, 2.0]).view(2, 1, 1)
    dropped = planned.apply(Call("dropout2d", torch.ones(1, 2, 1, 2), 0.5), mask, 1)
    assert dropped.tolist() == [[[[0, 0]], [[2, 2]]]]
    with pytest.raises(UnsupportedNetwork, match=r"at most \[2, 3, 3\] a row.*drop: dropout2d.*got \[2, 4, 3\]"):
        planned.apply(Call("dropout2d", torch.ones(1, 2, 4, 3), 0.5), mask, 1)
    with pytest.raises(UnsupportedNetwork, match=r"got \[2, 3\]"):
        planned.apply(Call("dropout2d", torch.ones(1, 2, 3), 0.5), mask, 1)


def test_what_rows_share_cannot_be_folded():
    weight = _planned("dropout", (3, 2), axis=None)
    with pytest.raises(StrategyNotApplicable, match="One mask serves all rows"):
        weight.apply(Call("dropout", torch.ones(3, 2), 0.5), torch.ones(4, 3, 2), 2, 4)
    packed = _planned("lstm", (3, 2), axis=None, packed=True)
    call = Call("lstm", torch.ones(4, 2), 0.5, steps=torch.tensor([2, 1, 1]))
    with pytest.raises(StrategyNotApplicable, match="Packing"):
        packed.apply(call, torch.ones(4, 3, 2), 2, 4)


def test_packed_rows_get_the_mask_of_their_time_step():
    packed = _planned("lstm", (3, 1), axis=None, packed=True)
    call = Call("lstm", torch.ones(4, 1), 0.5, steps=torch.tensor([2, 1, 1]))
    assert packed.apply(call, torch.tensor([[1.0], [2.0], [3.0]]), 2).flatten().tolist() == [1, 1, 2, 3]


@pytest.mark.parametrize("p", [0.0, 0.3, 0.9])
def test_the_scale_of_alpha_dropout_is_the_published_one(p):
    alpha = -1.7580993408473766
    assert alpha_scale(p) == pytest.approx((1 - p + alpha**2 * p * (1 - p)) ** -0.5)
    assert alpha_scale(1.0) == 0
