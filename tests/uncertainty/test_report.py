"""The table that says what is sampled."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.uncertainty import Committee


def test_the_work_before_the_first_site_is_counted():
    # Products of 6 x 10, 10 x 20 and 20 x 3 numbers; the site comes after the second.
    network = nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 20), nn.Dropout(0.5), nn.Linear(20, 3)).eval()
    report = Committee(network, torch.randn(1, 6), num_samples=4).audit()
    assert report.before_first_site == pytest.approx((60 + 200) / (60 + 200 + 60))
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3)).eval()
    assert Committee(network, torch.randn(1, 6), num_samples=4).audit().before_first_site == 0


def test_convolutions_count_and_a_site_that_is_left_out_does_not():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Dropout2d(0.1), nn.Flatten(), nn.Linear(36, 9), nn.Dropout(0.5), nn.Linear(9, 3)
    ).eval()
    example = torch.randn(1, 1, 5, 5)
    convolution, hidden, head = 9 * 9 * 4, 36 * 9, 9 * 3
    whole = convolution + hidden + head
    assert Committee(network, example, num_samples=4).audit().before_first_site == pytest.approx(convolution / whole)
    last = Committee(network, example, num_samples=4, sites=["4"]).audit()
    assert last.before_first_site == pytest.approx((convolution + hidden) / whole)
    assert last.left_out == ("1",)


def test_the_table_says_it_all():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.drop, self.head = nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.drop(self.first(x))
            h = h + torch.randn_like(h) if self.training else h
            return F.linear(h, F.dropout(self.head.weight, 0.3 if self.training else 0.0), self.head.bias)

    committee = Committee(Net().eval(), torch.randn(1, 6), num_samples=4, rates={"drop": 0.4})
    lines = [line.split() for line in str(committee.audit()).splitlines()]
    assert lines[1] == ["drop", "dropout", "0.4", "0.2", "8", "activation"]
    assert lines[2] == ["Net", "dropout", "0.3", "in", "train", "mode", "3", "x", "8", "weight", "or", "constant"]
    text = str(committee.audit())
    assert f"members                4, strategy: {committee.strategy}" in text
    assert "note                   Net calls randn_like in train mode" in text
    assert "masks                  0.0 MiB" in text


def test_a_report_changes_nothing():
    network, x = nn.Sequential(nn.Dropout(0.5, inplace=True), nn.Linear(6, 3)).eval(), torch.randn(2, 6)
    committee = Committee(network, x, num_samples=4)
    before, plain = committee(x), network[1](x)
    committee.audit()
    assert torch.equal(committee(x), before)
    assert torch.equal(network(x), plain)
