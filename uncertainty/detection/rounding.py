"""Rounding: how far two evaluations of the same input may lie apart, so that no tie is broken by its last digits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dubio.uncertainty.detection.ecdf import Ranks, composite
from dubio.uncertainty.detection.measures import single
from dubio.uncertainty.detection.outputs import Outputs
from dubio.uncertainty.detection.scores import Score

# What single precision may make of a score on any processor, by any strategy and in any batch: 512 steps of its number
# format, of the score itself and of how the select scores spread.
RELATIVE = 2.0**-14
# Two steps of a number near 1: probabilities and unit vectors are rounded no finer, however small their score is.
ABSOLUTE = 2.0**-22
# What was measured on one machine and a few rows counts so many times over.
FACTOR = 4.0
# The order in which ranks, in double precision, are added up moves no more than this share of their sum.
ADDED = 2.0**-44
# The spread is that of the upper half, where thresholds lie, without its outermost scores.
UPPER = 0.95


@dataclass(frozen=True)
class Rounding:
    """How far evaluations of the same input may lie apart.

    The batch in which a row comes, the strategy that runs the members and the processor decide in which order sums are
    taken, and so the last digits of a score. Where many rows are equal that decides on which side of a threshold all of
    them lie. So calibration counts every row with the largest score that rounding may give it: a request's is never
    larger, and ties stay ties.

    Attributes:
        slack: By the name of a score s: two evaluations lie at most ``slack + RELATIVE * |s|`` apart.
        probability: How far two evaluations of a member's probability lie apart, at most.
    """

    slack: Mapping[str, float]
    probability: float = RELATIVE

    @classmethod
    def least(cls, ranks: Mapping[str, Ranks]) -> Rounding:
        """What is allowed for even where nothing was measured.

        Args:
            ranks: Of each score by its name.
        """
        return cls({name: RELATIVE * _spread(each.scores_N) + ABSOLUTE for name, each in ranks.items()})

    def measure(self, scores: Sequence[Score], rows: Outputs, apart: Sequence[Outputs]) -> Rounding:
        """The same, or more where the scores of some rows turn out to lie farther apart.

        Args:
            scores: All that count.
            rows: As they came in one large batch.
            apart: The same rows as they come in other batches, in the same order.
        """
        slack = {}
        for score in scores:
            together_B, apart_B = score.score(rows).double(), torch.cat([score.score(each).double() for each in apart])
            excess = float(((together_B - apart_B).abs() - RELATIVE * together_B.abs()).amax())
            slack[score.name] = max(self.slack[score.name], FACTOR * excess)
        moved = float((rows.probs_KBC - torch.cat([each.probs_KBC for each in apart], dim=1)).abs().amax())
        return Rounding(slack, max(self.probability, FACTOR * moved))

    @property
    def lead(self) -> float:
        """How far two evaluations of one class's lead over another, or of its standard error, lie apart, at most."""
        return 2 * self.probability

    def bounds(self, scores: Sequence[Score], ranks: Mapping[str, Ranks], outputs: Outputs) -> tuple[Tensor, Tensor]:
        """The smallest and the largest composite scores that another evaluation may give, ``[B]`` in float64.

        Args:
            scores: Whose ranks add up; to 0 where there are none.
            ranks: Of each score by its name.
            outputs: Of one evaluation.
        """
        none_B = outputs.deterministic.logits_BC.new_zeros(len(outputs.deterministic.logits_BC)).double()
        low, high = [none_B], [none_B]
        for score in scores:
            score_B = score.score(outputs).double()
            slack_B = self.slack[score.name] + RELATIVE * score_B.abs()
            low.append(ranks[score.name](score_B - slack_B))
            high.append(ranks[score.name](score_B + slack_B))
        return composite(torch.stack(low)) * (1 - ADDED), composite(torch.stack(high)) * (1 + ADDED)


def varies(scores_N: Tensor) -> bool:
    """Whether scores differ by more than rounding, in their upper half as ranks see it."""
    scores_N = torch.unique(scores_N.double())
    return bool(scores_N[-1] - scores_N[(len(scores_N) - 1) // 2] > _step(scores_N[-1]))


def spread_out(scores_N: Tensor) -> Tensor:
    """The same scores; where they do not vary, the largest and one beyond, so that what is rounding has no rank."""
    if len(scores_N) < 2 or varies(scores_N):
        return scores_N
    top = scores_N.double().amax()
    return torch.stack([top, top + _step(top)])


def distinct(inputs_BF: Tensor) -> Tensor:
    """The indices of rows that differ from all rows before them, ascending."""
    first: dict[bytes, int] = {}
    for index, row in enumerate(single(inputs_BF).cpu().numpy()):
        first.setdefault(row.tobytes(), index)
    return torch.tensor(list(first.values()), dtype=torch.int64, device=inputs_BF.device)


def _step(score: Tensor) -> Tensor:
    return FACTOR * (ABSOLUTE + RELATIVE * score.abs())


def _spread(scores_N: Tensor) -> float:
    """From the middle of ascending scores to their upper end."""
    last = len(scores_N) - 1
    return float(scores_N[math.ceil(UPPER * last)] - scores_N[last // 2])
