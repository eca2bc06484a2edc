"""Out-of-distribution scores: a number per input, and higher = more out-of-distribution, always."""

from __future__ import annotations

from torch import Tensor

from uncertainty.detection.measures import Summary


def max_softmax(logits_BC: Tensor) -> Tensor:
    """1 - max_c softmax(logits), ``[B]`` (Hendrycks and Gimpel 2017, turned so that higher is stranger)."""
    return 1 - logits_BC.softmax(-1).amax(-1)


def energy(logits_BC: Tensor, temperature: float = 1.0) -> Tensor:
    """Free energy -T logsumexp(logits / T), ``[B]`` (Liu 2020)."""
    return -temperature * (logits_BC / temperature).logsumexp(-1)


def mutual_information(summary: Summary) -> Tensor:
    """Disagreement of the members in nats, ``[B]``; see :func:`uncertainty.detection.measures.mutual_information`."""
    return summary.mutual_information_B


def predictive_entropy(summary: Summary) -> Tensor:
    """Total uncertainty in nats, ``[B]``; see :func:`uncertainty.detection.measures.predictive_entropy`."""
    return summary.predictive_entropy_B
