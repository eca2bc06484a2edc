"""Answers: what a decision about an input looks at, and how sure it can be of what another evaluation would say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Answers:
    """Both answers to B inputs.

    Attributes:
        label_B: Class index of the deterministic prediction.
        probs_BC: Its probabilities.
        mean_BC: The mean probabilities of the members that were asked.
    """

    label_B: Tensor
    probs_BC: Tensor
    mean_BC: Tensor

    @property
    def agreed(self) -> Tensor:
        """Whether both answers name the same class, ``[B]``."""
        return self.label_B == self.mean_BC.argmax(-1)

    def confidence(self, name: str) -> Tensor:
        """One of `CONFIDENCES`, ``[B]`` in float64; never negative."""
        return CONFIDENCES[name](self)


def _margin(answers: Answers) -> Tensor:
    first_B, second_B = answers.mean_BC.double().topk(2).values.unbind(-1)
    return first_B - second_B


# A change of each probability by e changes none of them by more than 2 e.
CONFIDENCES: dict[str, Callable[[Answers], Tensor]] = {
    "mc_probability": lambda answers: answers.mean_BC.double().amax(-1),
    "mc_margin": _margin,
    "probability": lambda answers: answers.probs_BC.double().amax(-1),
    "least_probability": lambda answers: torch.minimum(
        answers.mean_BC.double().amax(-1), answers.probs_BC.double().amax(-1)
    ),
}


@dataclass(frozen=True)
class LabelledAnswers:
    """Answers to N rows whose true class is known.

    Attributes:
        answers: Of one evaluation.
        labels_N: The true classes.
        low_N: The smallest composite scores that another evaluation may give.
        high_N: The largest.
        sure_N: Whether `rounding` holds for the row: evaluations may ask different numbers of members.
        rounding: How far two evaluations of a probability lie apart, at most.
    """

    answers: Answers
    labels_N: Tensor
    low_N: Tensor
    high_N: Tensor
    sure_N: Tensor
    rounding: float

    def __len__(self) -> int:
        return len(self.labels_N)

    @cached_property
    def right(self) -> Tensor:
        """Whether both labels are the true class in every evaluation, ``[N]``."""
        found_N = self.answers.agreed & (self.answers.label_B == self.labels_N)
        return found_N & self._clear & self.sure_N

    @cached_property
    def wrong(self) -> Tensor:
        """Whether in some evaluation both labels are the same class and it may not be the true one, ``[N]``."""
        return ~self.right & (self.answers.agreed | ~self._clear | ~self.sure_N)

    @cached_property
    def _clear(self) -> Tensor:
        """Whether rounding changes neither label, ``[N]``."""
        leads = (probs.double().topk(2).values for probs in (self.answers.probs_BC, self.answers.mean_BC))
        deterministic_N, mc_N = (top[:, 0] - top[:, 1] > 2 * self.rounding for top in leads)
        return deterministic_N & mc_N

    def count(self, confidence: str, familiar: float, thresholds_T: Tensor) -> tuple[Tensor, Tensor]:
        """How many rows are accepted, and how many of these are wrong, at the worst that rounding may do, ``[T]``.

        A row that may be accepted counts if it may be wrong, one that is right only if it surely is accepted. Either
        makes a bound on the share of wrong ones larger.

        Args:
            confidence: Name of the confidence score.
            familiar: Accepted are composite scores below it,
            thresholds_T: and confidences at or above one of these.
        """
        confidence_N, slack = self.answers.confidence(confidence), 2 * self.rounding
        right_N = confidence_N[self.right & (self.high_N < familiar)] - slack
        wrong_N = torch.where(self.sure_N, confidence_N + slack, torch.inf)[self.wrong & (self.low_N < familiar)]
        thresholds_T = thresholds_T.to(confidence_N.device)
        wrong_T = _at_least(wrong_N, thresholds_T)
        return _at_least(right_N, thresholds_T) + wrong_T, wrong_T


def _at_least(values_N: Tensor, thresholds_T: Tensor) -> Tensor:
    return len(values_N) - torch.searchsorted(values_N.sort().values, thresholds_T)
