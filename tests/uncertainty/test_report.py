"""The table that says what is sampled."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.uncertainty import Committee
from dubio.uncertainty.execution.autotune import BATCHES


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
    assert committee.audit().before_first_site == 6 * 8 / (6 * 8 + 8 * 3)
    assert "work before first site 66.7% of a pass" in text
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


def test_strategies_are_in_use_or_agree_or_are_dropped_with_the_reason():
    network = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.LayerNorm(8), nn.Linear(8, 3)).eval()
    report = Committee(network, torch.randn(1, 6), num_samples=4, strategy="vmap").audit()
    lines = str(report).splitlines()
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == ["strategy", "state", "why"]
    states = {line.split()[0]: line.split()[1] for line in table[1:8]}
    assert states == {
        "chain": "agrees",
        "vmap": "in",
        "fold": "agrees",
        "loop": "agrees",
        "thinned": "not",
        "packed": "not",
        "traced": "not",
    }
    assert table[5] == "thinned   not applicable  what follows site 0 makes something of a dropped unit"
    assert (set(report.autotuner.strategies), str(report.autotuner)) == ({"vmap"}, "vmap")
    assert "milliseconds" not in str(report)  # nothing was measured


def test_what_was_measured_is_said_for_every_size():
    network = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    report = Committee(network, torch.randn(1, 6), num_samples=4, measure_seconds=60).audit()
    lines = str(report).splitlines()
    first = next(
        index for index, line in enumerate(lines) if line.split() == ["rows", "strategy", "milliseconds", "why"]
    )
    for line, size in zip(lines[first + 1 :], BATCHES, strict=False):
        assert line.split()[:2] == [str(size), report.autotuner.choice[size]]
    assert " chain " in lines[first + 1]
    assert " thinned " in lines[first + 1]
    # Whatever lost everywhere is gone, with its memory.
    assert set(report.autotuner.strategies) == set(report.autotuner.choice.all_names)
