"""Answers to rows whose true class is known: how they are counted where rounding may move them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dubio.uncertainty.detection.answers import CONFIDENCES, Answers
from tests.uncertainty.detection.labelled import labelled


def test_what_rounding_may_move_counts_as_it_does_most_harm():
    confidence, score = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 1.0, 1.0, 1.0])
    thresholds = torch.tensor([0.9, 0.8, 0.7, 0.6], dtype=torch.float64)

    def count(wrong: list[bool], rounding: float, **changes: Tensor) -> list[list[int]]:
        rows = replace(labelled(confidence, np.array(wrong), score, rounding), **changes)
        return [each.tolist() for each in rows.count("mc_probability", 2.0, thresholds)]

    assert count([False] * 4, 0.0) == [[1, 2, 3, 4], [0, 0, 0, 0]]
    assert count([False] * 4, 0.01) == [[0, 1, 2, 3], [0, 0, 0, 0]]
    assert count([True] * 4, 0.01) == [[1, 2, 3, 4], [1, 2, 3, 4]]
    assert count([True] * 4, 0.06)[1] == [2, 3, 4, 4]
    # Right rows whose score may not lie below, and wrong ones whose score may.
    high, low = torch.tensor([3.0, 1, 1, 1]), torch.tensor([1.0, 1, 1, 1])
    assert count([False] * 4, 0.0, high_N=high, low_N=low) == [[0, 1, 2, 3], [0, 0, 0, 0]]
    assert count([True] * 4, 0.0, high_N=high, low_N=low) == [[1, 2, 3, 4], [1, 2, 3, 4]]
    # A row that may ask other members may say anything, with any confidence.
    sure = torch.tensor([True, True, True, False])
    assert count([False] * 4, 0.0, sure_N=sure) == [[2, 3, 4, 4], [1, 1, 1, 1]]


def test_a_label_that_rounding_may_change_is_no_right_answer():
    rows = labelled(np.array([0.501, 0.9]), np.array([False, False]), np.zeros(2), rounding=0.05)
    assert rows.right.tolist() == [False, True]
    assert rows.wrong.tolist() == [True, False]


@pytest.mark.parametrize("name", CONFIDENCES)
def test_no_confidence_moves_by_more_than_twice_what_a_probability_does(name: str):
    chance, step = np.random.default_rng(0), 1e-3
    probs, mean = (torch.from_numpy(chance.dirichlet(np.ones(4), 500)) for _ in range(2))
    moved = [each + step * (2 * torch.from_numpy(chance.random((500, 4))) - 1) for each in (probs, mean)]
    before = Answers(probs.argmax(-1), probs, mean).confidence(name)
    after = Answers(probs.argmax(-1), *moved).confidence(name)
    assert 0 < float((before - after).abs().max()) <= 2 * step
    assert float(before.min()) >= 0


def test_labels_are_compared_class_by_class():
    probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]])
    mean = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    assert Answers(probs.argmax(-1), probs, mean).agreed.tolist() == [True, False]
