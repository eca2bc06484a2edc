"""Temperature scaling: one number that mends over- or under-confidence and changes no label."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from dubio.uncertainty.detection.measures import log_mean_softmax, negative_log_likelihood
from dubio.uncertainty.errors import UncertaintyError

LOW, HIGH = 0.05, 20.0
SPREAD = 0.5
# Below this a probability is 0 in single precision.
SMALLEST = torch.finfo(torch.float32).smallest_normal * torch.finfo(torch.float32).eps


def fit(logits_KBC: Tensor, labels_B: Tensor) -> float:
    """The temperature T in [0.05, 20] that is most probable after these rows, for mean_K softmax(logits / T).

    Beforehand log T is normal with the standard deviation `SPREAD`: two thirds of all networks are expected between
    T = 0.6 and 1.6. So few rows change little, and many outweigh what was expected. And as n rows that are all right
    must not make the probabilities infinitely sure, each counts as wrong for a share .5 / (n + 1), as half a wrong one
    more among them would. A row whose true class has no probability at any of these temperatures, because the network
    masks it with -inf or -1e6, say, counts for nothing: it is as impossible at one T as at another.

    Args:
        logits_KBC: The members' logits; for a deterministic prediction K = 1.
        labels_B: True classes of held-out rows.

    Raises:
        UncertaintyError: If there are no rows, or the network masks the true class of every one.

    Source: Guo 2017; the half is that of Jeffreys 1946.
    """
    if not len(labels_B):
        raise UncertaintyError("Expected at least one labelled row to fit a temperature, but got none.")
    # What the highest temperature does not bring back, in single precision, none does.
    possible_BC = log_mean_softmax(logits_KBC.double() / HIGH) > math.log(SMALLEST)
    told_B = possible_BC.gather(-1, labels_B.unsqueeze(-1)).squeeze(-1)
    if not bool(told_B.any()):
        raise UncertaintyError(
            f"Expected a row whose true class has a probability to fit a temperature, but those of all "
            f"{len(labels_B)} rows have none; compare the classes that the network masks with the labels."
        )
    if not bool(told_B.all()):
        logits_KBC, labels_B = logits_KBC[:, told_B], labels_B[told_B]
    # Golden-section search over log T: one dimension, no derivative, no step size to choose.
    loss = partial(_loss, logits_KBC, labels_B)
    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(LOW), math.log(HIGH)
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-4:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return math.exp((low + high) / 2)


def undo(probs: Tensor, temperature: float) -> Tensor:
    """The probabilities without a temperature, from those with it: softmax(T log softmax(z / T)) = softmax(z)."""
    return (probs.log() * temperature).softmax(-1)


def _loss(logits_KBC: Tensor, labels_B: Tensor, log_temperature: float) -> float:
    log_mean_BC = log_mean_softmax(logits_KBC.double() / math.exp(log_temperature))
    nll_B = negative_log_likelihood(log_mean_BC, labels_B)
    # log(1 - p); where nothing but the true class is possible, it says nothing about T.
    doubt_B = log_mean_BC.scatter(-1, labels_B.unsqueeze(-1), -math.inf).logsumexp(-1).clamp(min=math.log(SMALLEST))
    wrong = 0.5 / (len(labels_B) + 1)
    expected = (log_temperature / SPREAD) ** 2 / 2
    return float(((1 - wrong) * nll_B - wrong * doubt_B).mean()) + expected / len(labels_B)
