"""Measures of uncertainty from the members' class probabilities. Entropies are in nats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows and columns of a product come in blocks of so many, filled up with zeros.
BLOCK = 4


@dataclass(frozen=True)
class Summary:
    """What K members say about B inputs with C classes.

    The entropies say how unsure the members are and how far they disagree, not why: neither part was found to tell
    what is ambiguous in the data from what the model was not taught (Mucsanyi 2024).

    Attributes:
        mean_BC: Mean_K p, the mean probabilities.
        std_BC: Standard deviation over the K members, with divisor K (correction 0): the committee is frozen, so it is
            the whole population that is averaged, not a sample of one.
        predictive_entropy_B: Total uncertainty H(mean_K p), in [0, ln C].
        expected_entropy_B: Mean_K H(p): how unsure the members are, each by itself.
        mutual_information_B: H(mean_K p) - mean_K H(p): how far they disagree; never negative.

    Source: Houlsby 2011 (BALD); Mucsanyi 2024, Benchmarking Uncertainty Disentanglement.
    """

    mean_BC: Tensor
    std_BC: Tensor
    predictive_entropy_B: Tensor
    expected_entropy_B: Tensor
    mutual_information_B: Tensor


def single(x: Tensor) -> Tensor:
    """Give numbers in single precision; those in double stay as they are.

    Half precision holds about three digits, so that measures of different inputs would round to the same number.
    """
    return x if x.dtype in {torch.float32, torch.float64} else x.float()


def unit_norm(rows_BF: Tensor) -> Tensor:
    """Rows of length 1, in float64; rows of zeros stay zeros."""
    rows_BF = rows_BF.double()
    # Dividing by the largest entry first keeps the sum of squares of a far-out row from overflowing.
    largest_B1 = rows_BF.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(rows_BF.dtype).tiny)
    return torch.nn.functional.normalize(rows_BF / largest_B1, dim=-1)


def softmax(logits_KBC: Tensor) -> Tensor:
    """Probabilities ``[K, B, C]`` in single precision at least, laid out class by class.

    torch's softmax over a short last axis is not vectorised; over the first axis this takes a tenth of the time, and so
    does what follows, which keeps the layout. That one's own rounds a row otherwise at the end of a thread's share.
    """
    logits_CKB = single(logits_KBC).movedim(-1, 0).contiguous()
    powers_CKB = (logits_CKB - logits_CKB.amax(0)).exp_()
    return powers_CKB.div_(total(powers_CKB)).movedim(0, -1)


def total(x: Tensor) -> Tensor:
    """The sum over the first axis, in the same order for each number, whatever stands beside it.

    On a CPU torch's own sum takes the last numbers of a row of them in another order, so that one input's measures
    would depend on how many others there are; its running sum takes them one after the other, in double precision. On
    a GPU the running sum need not repeat itself.
    """
    return x.sum(0) if x.is_cuda else x.cumsum(0)[-1]


def product(rows_BF: Tensor, matrix_FG: Tensor) -> Tensor:
    """Rows times a matrix, ``[..., B, G]``, each row summed in the same order wherever it stands.

    MKL took another order, on an AMD EPYC with one and two threads, where there were fewer than four rows, and one
    that depends on the row's place among the others where the columns did not come in fours.
    """
    rows, columns = rows_BF.shape[-2], matrix_FG.shape[-1]
    if columns % BLOCK:
        matrix_FG = F.pad(matrix_FG, (0, -columns % BLOCK))
    if rows % BLOCK:
        rows_BF = F.pad(rows_BF, (0, 0, 0, -rows % BLOCK))
    whole = rows_BF @ matrix_FG
    return whole if whole.shape[-2:] == (rows, columns) else whole[..., :rows, :columns]


def summarise(probs_KBC: Tensor) -> Summary:
    """All measures of the members' probabilities ``[K, B, C]`` in one pass, in single precision at least.

    A row's are the same to the last bit in any batch.
    """
    probs_KBC = single(probs_KBC)
    members = len(probs_KBC)
    mean_BC = total(probs_KBC) / members
    # torch's own std warns about an empty batch.
    variance_BC = total((probs_KBC - mean_BC).square()) / members
    return _summary(mean_BC, variance_BC, total(_entropy(probs_KBC)) / members)


def pool(summaries: Sequence[Summary], weights: Sequence[float]) -> Summary:
    """The summary of several groups of members taken together.

    With a group's number of members as its weight this is the summary of all of them; where only some of a group have
    answered, its own summary stands for the rest.

    Args:
        summaries: At least one, of the same inputs.
        weights: One a group, positive; only their ratios count.
    """
    shares = [weight / sum(weights) for weight in weights]
    mean_BC = _mixed([summary.mean_BC for summary in summaries], shares)
    # The variance within the groups, and that between them.
    squares = [summary.std_BC.square() + (summary.mean_BC - mean_BC).square() for summary in summaries]
    expected_B = _mixed([summary.expected_entropy_B for summary in summaries], shares)
    return _summary(mean_BC, _mixed(squares, shares), expected_B)


def log_mean_softmax(logits_KBC: Tensor) -> Tensor:
    """log mean_K softmax(logits), ``[B, C]`` in float64: what the members say together, without underflow."""
    return logits_KBC.double().log_softmax(-1).logsumexp(0) - math.log(len(logits_KBC))


def negative_log_likelihood(log_probs_BC: Tensor, labels_B: Tensor) -> Tensor:
    """-log p of the true class, ``[B]`` in nats."""
    return -log_probs_BC.gather(-1, labels_B.unsqueeze(-1)).squeeze(-1)


def _mixed(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    return total(torch.stack([value * share for value, share in zip(values, shares, strict=True)]))


def _entropy(probs: Tensor) -> Tensor:
    terms: Tensor = torch.special.xlogy(probs, probs)
    return -total(terms.movedim(-1, 0))


def _summary(mean_BC: Tensor, variance_BC: Tensor, expected_B: Tensor) -> Summary:
    total_B = _entropy(mean_BC)
    # Jensen's inequality makes the mutual information non-negative; rounding alone can break that.
    return Summary(mean_BC, variance_BC.sqrt(), total_B, expected_B, (total_B - expected_B).clamp(min=0))
