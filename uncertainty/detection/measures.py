"""Measures of uncertainty from the members' class probabilities. Entropies are in nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dubio.uncertainty.errors import UncertaintyError


@dataclass(frozen=True)
class Summary:
    """What K members say about B inputs with C classes.

    Attributes:
        mean_BC: mean probabilities.
        std_BC: standard deviation over the committee, see :func:`std`.
        predictive_entropy_B: total uncertainty.
        expected_entropy_B: aleatoric part.
        mutual_information_B: epistemic part; total = aleatoric + epistemic.
    """

    mean_BC: Tensor
    std_BC: Tensor
    predictive_entropy_B: Tensor
    expected_entropy_B: Tensor
    mutual_information_B: Tensor

    def rows(self, chosen_B: Tensor) -> Summary:
        """The summary of some of the inputs, by a mask or by indices."""
        return Summary(*(getattr(self, each.name)[chosen_B] for each in fields(self)))


def softmax(logits_KBC: Tensor) -> Tensor:
    """Probabilities ``[K, B, C]``, laid out class by class.

    torch's softmax over a short last axis is not vectorised; over the first axis it takes a tenth of the time, and so
    does what follows, which keeps the layout.
    """
    return logits_KBC.movedim(-1, 0).contiguous().softmax(0).movedim(0, -1)


def summarise(probs_KBC: Tensor) -> Summary:
    """All measures of ``probs_KBC`` in one pass, without checking that rows sum to one."""
    mean_BC = probs_KBC.mean(0)
    total_B = _entropy(mean_BC)
    aleatoric_B = _entropy(probs_KBC).mean(0)
    return Summary(
        mean_BC=mean_BC,
        std_BC=std(probs_KBC),
        predictive_entropy_B=total_B,
        expected_entropy_B=aleatoric_B,
        mutual_information_B=_difference(total_B, aleatoric_B),
    )


def pool(summaries: Sequence[Summary], weights: Sequence[float]) -> Summary:
    """The summary of several groups of members taken together.

    With a group's number of members as its weight this is the summary of all of them; where only some of a group have
    answered, its own summary stands for the rest.

    Args:
        summaries: at least one, of the same inputs.
        weights: one a group, positive; only their ratios count.
    """
    shares = [weight / sum(weights) for weight in weights]
    mean_BC = _mixed([summary.mean_BC for summary in summaries], shares)
    # The variance within the groups, and that between them.
    squares = [summary.std_BC.square() + (summary.mean_BC - mean_BC).square() for summary in summaries]
    total_B = _entropy(mean_BC)
    aleatoric_B = _mixed([summary.expected_entropy_B for summary in summaries], shares)
    return Summary(
        mean_BC=mean_BC,
        std_BC=_mixed(squares, shares).sqrt(),
        predictive_entropy_B=total_B,
        expected_entropy_B=aleatoric_B,
        mutual_information_B=_difference(total_B, aleatoric_B),
    )


def predictive_entropy(probs_KBC: Tensor) -> Tensor:
    """Total uncertainty H(mean_K p), ``[B]``, in [0, ln C].

    Raises:
        UncertaintyError: the last axis is not a distribution.
    """
    return _entropy(_distributions(probs_KBC).mean(0))


def expected_entropy(probs_KBC: Tensor) -> Tensor:
    """Aleatoric uncertainty mean_K H(p), ``[B]``.

    Raises:
        UncertaintyError: the last axis is not a distribution.
    """
    return _entropy(_distributions(probs_KBC)).mean(0)


def mutual_information(probs_KBC: Tensor) -> Tensor:
    """Epistemic uncertainty H(mean_K p) - mean_K H(p), ``[B]``, never negative (BALD; Houlsby 2011).

    Raises:
        UncertaintyError: the last axis is not a distribution.
    """
    return _difference(predictive_entropy(probs_KBC), expected_entropy(probs_KBC))


def variation_ratio(probs_KBC: Tensor) -> Tensor:
    """Share of members that do not vote for the most voted class, ``[B]`` (Gal 2016, section 3.3.1).

    Raises:
        UncertaintyError: the last axis is not a distribution.
    """
    votes_KB = _distributions(probs_KBC).argmax(-1)
    counts_BC = torch.nn.functional.one_hot(votes_KB, probs_KBC.shape[-1]).sum(0)
    return 1 - counts_BC.amax(-1) / probs_KBC.shape[0]


def mean(probs_KBC: Tensor) -> Tensor:
    """Mean probabilities over the committee, ``[B, C]``."""
    return probs_KBC.mean(0)


def std(probs_KBC: Tensor) -> Tensor:
    """Standard deviation over the K members, ``[B, C]``, with divisor K (correction 0).

    The committee is frozen, so it is the whole population that is averaged, not a sample of one.
    """
    # torch's own std warns about an empty batch.
    return (probs_KBC - probs_KBC.mean(0)).square().mean(0).sqrt()


def _mixed(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    return torch.stack([value * share for value, share in zip(values, shares, strict=True)]).sum(0)


def _entropy(probs: Tensor) -> Tensor:
    entropy: Tensor = -torch.special.xlogy(probs, probs).sum(-1)
    return entropy


def _difference(total_B: Tensor, aleatoric_B: Tensor) -> Tensor:
    # Jensen's inequality makes it non-negative; rounding alone can break that.
    return (total_B - aleatoric_B).clamp(min=0)


def _distributions(probs: Tensor) -> Tensor:
    sums = probs.sum(-1)
    # Asked this way round, NaN is refused too: it compares false with everything.
    if not (bool((probs >= 0).all()) and bool(((sums - 1).abs() <= 1e-3).all())):
        raise UncertaintyError(
            f"Expected probabilities, non-negative and with rows that sum to 1, but got values from "
            f"{float(probs.min()):g} and sums from {float(sums.min()):g} to {float(sums.max()):g}; "
            "apply softmax to logits first."
        )
    return probs
