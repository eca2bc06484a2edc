"""Temperature scaling: one number that mends over- or under-confidence and changes no label."""

from __future__ import annotations

import math

from torch import Tensor

from uncertainty.errors import UncertaintyError

LOW, HIGH = 0.05, 20.0


def fit(logits_KBC: Tensor, labels_B: Tensor) -> float:
    """The temperature T in [0.05, 20] that minimises the NLL of mean_K softmax(logits / T) (Guo 2017).

    Args:
        logits_KBC: the members' logits; for a deterministic prediction K = 1.
        labels_B: true classes of held-out rows.

    Raises:
        UncertaintyError: there are no rows.
    """
    if not len(labels_B):
        raise UncertaintyError("Expected at least one labelled row to fit a temperature, but got none.")
    # Golden-section search over log T: one dimension, no derivative, no step size to choose.
    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(LOW), math.log(HIGH)
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = _nll(logits_KBC, labels_B, left), _nll(logits_KBC, labels_B, right)
    while high - low > 1e-4:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = _nll(logits_KBC, labels_B, left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = _nll(logits_KBC, labels_B, right)
    return math.exp((low + high) / 2)


def _nll(logits_KBC: Tensor, labels_B: Tensor, log_temperature: float) -> float:
    log_probs_KBC = (logits_KBC.double() / math.exp(log_temperature)).log_softmax(-1)
    index_KB1 = labels_B.expand(len(logits_KBC), -1).unsqueeze(-1)
    # log mean_K p = logsumexp_K log p - log K
    log_mean_B = log_probs_KBC.gather(-1, index_KB1).squeeze(-1).logsumexp(0) - math.log(len(logits_KBC))
    return -float(log_mean_B.mean())
