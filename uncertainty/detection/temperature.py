"""Temperature scaling: one number that mends over- or under-confidence and changes no label."""

from __future__ import annotations

import math

from torch import Tensor

from dubio.uncertainty.detection.measures import log_mean_softmax, negative_log_likelihood
from dubio.uncertainty.errors import UncertaintyError

LOW, HIGH = 0.05, 20.0


def fit(logits_KBC: Tensor, labels_B: Tensor) -> float:
    """The temperature T in [0.05, 20] that minimises the negative log-likelihood of mean_K softmax(logits / T).

    The true class counts as (n + 1) / (n + 2) instead of 1, the others share the rest: n rows that are all right must
    not make the probabilities infinitely sure.

    Args:
        logits_KBC: The members' logits; for a deterministic prediction K = 1.
        labels_B: True classes of held-out rows.

    Raises:
        UncertaintyError: If there are no rows.

    Source: Guo 2017; the targets are those of Platt 1999.
    """
    if not len(labels_B):
        raise UncertaintyError("Expected at least one labelled row to fit a temperature, but got none.")
    # Golden-section search over log T: one dimension, no derivative, no step size to choose.
    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(LOW), math.log(HIGH)
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = _loss(logits_KBC, labels_B, left), _loss(logits_KBC, labels_B, right)
    while high - low > 1e-4:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = _loss(logits_KBC, labels_B, left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = _loss(logits_KBC, labels_B, right)
    return math.exp((low + high) / 2)


def _loss(logits_KBC: Tensor, labels_B: Tensor, log_temperature: float) -> float:
    log_mean_BC = log_mean_softmax(logits_KBC.double() / math.exp(log_temperature))
    nll_B = negative_log_likelihood(log_mean_BC, labels_B)
    others_B = (-log_mean_BC.sum(-1) - nll_B) / max(1, log_mean_BC.shape[-1] - 1)
    unsure = 1 / (len(labels_B) + 2)
    return float(((1 - unsure) * nll_B + unsure * others_B).mean())
