"""Rows are found on whatever axis they are, alone or together with something else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.uncertainty.dropout import batch_axis
from dubio.uncertainty.dropout.audit import audit
from dubio.uncertainty.dropout.function_mode import Call
from dubio.uncertainty.errors import UnsupportedSite
from tests.quick import quick_committee


class Net(nn.Module):
    """Two linear layers around a dropout that sees the activation with its axes in another order."""

    def __init__(
        self, there: Callable[[Tensor], Tensor], back: Callable[[Tensor, int], Tensor], drop: nn.Module
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.drop, self.head = nn.Linear(6, 12), drop, nn.Linear(12, 3)
        self.there, self.back = there, back

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).view(len(x), 3, 4)
        return self.head(self.back(self.drop(self.there(h)), len(x)).flatten(1))


# How the activation [B, 3, 4] is seen, the way back, the rows' axis once the axes are parted, and the mask's axes.
AXES = {
    "first": (lambda h: h, lambda h, b: h, 0, lambda m: m),
    "second": (lambda h: h.transpose(0, 1), lambda h, b: h.transpose(0, 1), 1, lambda m: m),
    "last": (lambda h: h.movedim(0, 2), lambda h, b: h.movedim(2, 0), 2, lambda m: m),
    "merged, rows outer": (lambda h: h.flatten(0, 1), lambda h, b: h.view(b, 3, 4), 0, lambda m: m),
    "merged, rows inner": (
        lambda h: h.transpose(0, 1).flatten(0, 1),
        lambda h, b: h.view(3, b, 4).transpose(0, 1),
        1,
        lambda m: m,
    ),
    "merged behind another axis": (
        lambda h: h.movedim(2, 0).flatten(1, 2),
        lambda h, b: h.view(4, b, 3).movedim(0, 2),
        1,
        lambda m: m.T,
    ),
}


@pytest.mark.parametrize(("there", "back", "axis", "order"), AXES.values(), ids=AXES)
def test_each_row_gets_the_members_mask(there, back, axis, order, keeps):
    network, x = Net(there, back, nn.Dropout(0.5)).eval(), torch.randn(5, 6)
    committee = quick_committee(network, x[:1], num_samples=6)
    assert committee.sites[0].axis == axis
    factors = [2 * order(keep) for keep in keeps(committee)[0]]
    with torch.no_grad():
        h = network.first(x).view(5, 3, 4)
        expected = torch.stack([network.head((h * each).flatten(1)) for each in factors])
    for rows in (slice(0, 1), slice(0, 2), slice(0, 5)):
        torch.testing.assert_close(committee(x[rows]), expected[:, rows], rtol=1e-5, atol=1e-5)
    by_fold = quick_committee(network, x[:1], num_samples=6, strategy="fold")
    torch.testing.assert_close(by_fold(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inner", [False, True])
def test_frames_of_a_video_have_channels_of_their_own(inner, keeps):
    class Video(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.drop, self.head = nn.Conv2d(1, 4, 3), nn.Dropout2d(0.5), nn.Linear(4, 3)

        def features(self, x: Tensor) -> Tensor:
            frames = self.conv((x.transpose(0, 1) if inner else x).flatten(0, 1))
            return frames

        def forward(self, x: Tensor) -> Tensor:
            h = self.drop(self.features(x)).mean((2, 3))
            h = h.view(2, len(x), 4).sum(0) if inner else h.view(len(x), 2, 4).sum(1)
            return self.head(h.relu())

    network, x = Video().eval(), torch.randn(3, 2, 1, 5, 5)
    committee = quick_committee(network, x[:1], num_samples=4)
    assert committee.sites[0].shape == (2, 4, 1, 1)
    with torch.no_grad():
        h = torch.stack([network.conv(clip).mean((2, 3)) for clip in x])
        expected = [network.head((h * 2 * keep.view(2, 4)).sum(1).relu()) for keep in keeps(committee)[0]]
    torch.testing.assert_close(committee(x), torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_an_order_that_cannot_be_told_is_refused():
    network = nn.Sequential(nn.Linear(6, 12), nn.Unflatten(1, (3, 4)), nn.Flatten(0, 1), nn.Threshold(1e9, 0.0))
    network = nn.Sequential(*network, nn.Dropout(0.5), nn.Unflatten(0, (-1, 3)), nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(UnsupportedSite, match=r"site '4'.*\(9, 4\) for a batch of 3.*order that could not be told"):
        audit(network.eval(), torch.randn(1, 6))


def _recorded(*shape: int, kind: str = "dropout") -> Call:
    return Call(kind, torch.zeros(shape), 0.5, name="drop")


@pytest.mark.parametrize(
    ("kind", "shape", "axes"),
    [("dropout1d", (2, 4), 1), ("dropout2d", (2, 4, 3, 3, 3), 2), ("dropout3d", (2, 4, 3, 3), 3)],
)
def test_an_activation_without_channels_of_that_kind_is_refused(kind, shape, axes):
    two, three = _recorded(*shape, kind=kind), _recorded(3, *shape[1:], kind=kind)
    with pytest.raises(UnsupportedSite, match=rf"{kind} needs \[B, C\] and {axes} more axes"):
        batch_axis.plan_call(two, three, None, 0.5)


@pytest.mark.parametrize(
    ("two", "three", "axis"),
    [((2, 4), (3, 4), None), ((4, 4), (6, 4), 0), ((3, 8), (3, 12), 1), ((1, 5), (1, 5), None)],
)
def test_a_merged_axis_is_one_that_grows_by_more_than_a_row(two, three, axis):
    assert batch_axis.merged_axis(_recorded(*two), _recorded(*three)) == axis


def test_scaled_by_the_mask_alone_where_the_activation_knows_nothing_of_the_batch(keeps):
    # A positional code that is dropped before it is added: one mask for all rows, as torch draws it.
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.codes, self.head = nn.Parameter(torch.randn(1, 6)), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x + F.dropout(self.codes, 0.5, self.training))

    network, x = Positions().eval(), torch.randn(3, 6)
    committee = quick_committee(network, x[:1], num_samples=4)
    assert (committee.sites[0].shape, committee.sites[0].axis) == ((1, 6), None)
    with torch.no_grad():
        expected = torch.stack([network.head(x + network.codes * 2 * keep) for keep in keeps(committee)[0]])
    torch.testing.assert_close(committee(x), expected, rtol=1e-5, atol=1e-5)
