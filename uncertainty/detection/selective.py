"""Selective prediction: which answers are accepted, so that few of these are wrong.

An answer is **accepted** if its composite score lies below `familiar`, both of its labels name the same class, and its
confidence is at or above a threshold. The promise: of the accepted answers to inputs like the training data at most the
share `risk` is wrong, with confidence 1 - delta over the draw of the calibration rows. As both labels are the same, it
holds for the deterministic and for the MC label.

**Why it is exact.** Everything but two numbers is fixed on the select split: the confidence score, an ascending grid of
values for `familiar`, and a descending sequence of thresholds.

1. The flag's threshold t is the k-th smallest of the n calibration scores. `familiar` is the largest value f_i of the
   grid that is at most t, so no flagged input is accepted: those have scores above t. Which one it is depends only on
   how many calibration scores lie below f_i (fewer than k) and below f_(i+1) (k or more). So given which it is, and how
   many rows lie below it, those rows are still independent draws of inputs with scores below f_i.
2. Among them, those that are accepted at a threshold c are independent draws of inputs that would be, so how many of M
   are wrong is Binomial(M, R(c)), where R(c) is the true risk. If R(c) > risk, then P(Binomial(M, risk) <= wrong) is at
   most delta with probability at most delta.
3. The thresholds are tested in their fixed order, each at level delta, until one fails. Some R(c) > risk passes only if
   the first such passes, which happens with probability at most delta. The last one that passed is taken.

Given each outcome of step 1 the probability of a broken promise is at most delta, so it is altogether. Ties change
nothing in this. What rounding can move counts as it does most harm.

Source:
    Geifman and El-Yaniv 2017, Selective Classification for Deep Neural Networks; Angelopoulos et al. 2021, Learn then
    Test, section on fixed-sequence testing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dubio.uncertainty.detection.answers import CONFIDENCES, Answers, LabelledAnswers
from dubio.uncertainty.detection.conformal import Calibration, level, rows_needed
from dubio.uncertainty.detection.interval import binomial_at_most, largest_count
from dubio.uncertainty.errors import UncertaintyError

TOO_FEW_ROWS = "too_few_rows"
TOO_MANY_ERRORS = "too_many_errors"
REFUSALS = (TOO_FEW_ROWS, TOO_MANY_ERRORS)
STEPS = 100  # thresholds in a sequence, at most
ALL = -1.0  # the threshold that every confidence reaches
PLATEAU = 0.01  # the first test may be so much likelier to fail than the one that is likeliest to pass
LUCK = 1.28  # standard errors


@dataclass(frozen=True)
class AcceptanceTests:
    """What is fixed before the calibration rows are looked at; see the module.

    Attributes:
        rows: How many the calibration split will have.
        risk: Promised upper bound on the share of wrong answers among the accepted ones.
        delta: Probability, over the draw of the calibration rows, that it does not hold.
        confidence: Name of the confidence score.
        familiar_G: Ascending; may be empty.
        thresholds_T: Descending, the last is `ALL`.
        first: Which threshold is tested first; then the ones behind it.
        share_T: Of each threshold the share of the select rows that it accepts,
        error_T: and a bound on the share of wrong ones among these, which few rows may show too few of.
    """

    rows: int
    risk: float
    delta: float
    confidence: str
    familiar_G: Tensor
    thresholds_T: Tensor
    first: int
    share_T: Tensor
    error_T: Tensor

    @classmethod
    def fit(
        cls, select: LabelledAnswers, rows: int, risk: float, alpha: float, delta: float, confidence: str | None = None
    ) -> AcceptanceTests:
        """Choose what to test, and in which order, on the select split.

        Args:
            select: Its rows.
            rows: How many the calibration split will have; nothing else about it is looked at.
            risk: The promise to come.
            alpha: Of the flag.
            delta: Of both promises.
            confidence: Name of the confidence score; by default that with the least errors among the most confident.

        Raises:
            UncertaintyError: If the risk is not in (0, 1).
            CalibrationSetTooSmall: If there are too few rows for the flag.
        """
        check_risk(risk)
        confidence = confidence or choose_confidence(select.answers, select.labels_N)
        familiar_G = _between(select.low_N, select.high_N)
        # About where the flag's threshold will lie: only the order of the tests depends on it.
        guess = float(torch.quantile(select.high_N, 1 - level(rows, alpha, delta)))
        scores_N = select.answers.confidence(confidence)[select.high_N <= guess]
        cuts_T = _between(scores_N - 2 * select.rounding, scores_N + 2 * select.rounding).flip(0)
        cuts_T = cuts_T[torch.linspace(0, len(cuts_T) - 1, min(STEPS, len(cuts_T))).round().long()]
        thresholds_T = torch.cat([cuts_T, cuts_T.new_tensor([ALL])])
        accepted_T, wrong_T = select.count(confidence, guess, thresholds_T)
        share_T, error_T = accepted_T / len(select), _error(accepted_T, wrong_T)
        first = _first(share_T * rows, error_T, risk, delta)
        return cls(rows, risk, delta, confidence, familiar_G, thresholds_T, first, share_T, error_T)

    def calibrate(self, rows: LabelledAnswers, flag: Calibration) -> Acceptance:
        """The rule that keeps the promise, or why there is none.

        Args:
            rows: The calibration split, on which the flag was calibrated, too.
            flag: Its calibration, fitted to the largest scores that these rows may get.
        """
        familiar, accepted_T, wrong_T = self.count(rows, flag)
        end = self.first
        while end < len(accepted_T) and self.passes(int(wrong_T[end]), int(accepted_T[end])):
            end += 1
        if end == self.first:
            enough = len(rows) >= rows_needed(self.risk, self.delta)
            refusal = TOO_MANY_ERRORS if enough else TOO_FEW_ROWS
            return Acceptance(self.risk, self.delta, self.confidence, rows=len(rows), refusal=refusal)
        last = end - 1
        return Acceptance(
            risk=self.risk,
            delta=self.delta,
            confidence=self.confidence,
            familiar=familiar,
            threshold=float(self.thresholds_T[last]),
            rows=len(rows),
            accepted=int(accepted_T[last]),
            wrong=int(wrong_T[last]),
        )

    def at(self, risk: float) -> AcceptanceTests:
        """The same tests for another risk, for which another one may come first."""
        return replace(self, risk=risk, first=_first(self.share_T * self.rows, self.error_T, risk, self.delta))

    def count(self, rows: LabelledAnswers, flag: Calibration) -> tuple[float, Tensor, Tensor]:
        """Below which composite score rows are accepted, how many are at each threshold, and how many of these are
        wrong, ``[T]``; see `calibrate`."""
        unflagged_G = self.familiar_G[(flag.p_value(self.familiar_G) > flag.level).cpu()]
        familiar = float(unflagged_G[-1]) if len(unflagged_G) else -math.inf
        return familiar, *rows.count(self.confidence, familiar, self.thresholds_T)

    def passes(self, wrong: int, accepted: int) -> bool:
        """Whether so many wrong ones of the accepted rows show that the true share is at most the risk."""
        return binomial_at_most(wrong, accepted, self.risk) <= self.delta


@dataclass(frozen=True)
class Acceptance:
    """A calibrated rule for accepting answers, or why there is none; see the module.

    Attributes:
        risk: Promised upper bound on the share of wrong answers among the accepted ones.
        delta: Probability, over the draw of the calibration rows, that it does not hold.
        confidence: Name of the confidence score.
        familiar: Accepted are composite scores below it,
        threshold: and confidences at or above it.
        rows: Calibration rows.
        accepted: How many of them are accepted, at the worst that rounding may do,
        wrong: and how many of these are wrong.
        refusal: One of `REFUSALS`; None where there is a promise.
        rows_due: Where there is none, how many calibration rows would probably do; 0 if it is not known that any would,
        risk_due: and the smallest risk that these rows carry; 1 if there is none. See `advice`.
    """

    risk: float
    delta: float
    confidence: str
    familiar: float = 0.0
    threshold: float = 0.0
    rows: int = 0
    accepted: int = 0
    wrong: int = 0
    refusal: str | None = None
    rows_due: int = 0
    risk_due: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that no calibration gives."""
        check_risk(self.risk)
        if self.confidence not in CONFIDENCES or self.refusal not in (None, *REFUSALS):
            raise UncertaintyError(
                f"Expected `confidence` to be one of {list(CONFIDENCES)} and `refusal` one of {list(REFUSALS)} or None."
            )
        if not 0 < self.delta < 1:
            raise UncertaintyError(f"Expected `delta` to be a number in (0, 1), but got {self.delta}.")
        if not 0 <= self.wrong <= self.accepted <= self.rows:
            raise UncertaintyError(
                f"Expected `wrong` of `accepted` of `rows`, but got {self.wrong}, {self.accepted} and {self.rows}."
            )

    def check(self, flag: Calibration) -> None:
        """Refuse a rule that would accept what this calibration flags, or whose promise its own counts do not carry.

        Raises:
            UncertaintyError: If it is so.
        """
        p_value = float(flag.p_value(flag.scores_N.new_tensor([self.familiar])))
        if self.rows != len(flag.scores_N) or (self.refusal is None and not p_value > flag.level):
            raise UncertaintyError(
                f"Expected a rule fitted to the flag's {len(flag.scores_N)} calibration rows that accepts nothing "
                f"flagged, but got one for {self.rows} rows up to the score {self.familiar:g}; calibrate again."
            )
        # Only here is it known that these counts are no larger than what was stored.
        if self.refusal is None and binomial_at_most(self.wrong, self.accepted, self.risk) > self.delta:
            raise UncertaintyError(
                f"Expected at most {self.risk:g} wrong with confidence {1 - self.delta:g}, but {self.wrong} wrong "
                f"answers of {self.accepted} do not carry that; calibrate again."
            )

    def accepts(self, answers: Answers, score_B: Tensor) -> Tensor:
        """Which answers are accepted, ``[B]``.

        Args:
            answers: From as many members as at calibration.
            score_B: Composite scores of the same inputs.
        """
        confident_B = answers.confidence(self.confidence) >= self.threshold
        return (score_B < self.familiar) & answers.agreed & confident_B

    def advice(self) -> str:
        """What would make the promise possible, where there is none."""
        cures = [f"these rows carry a risk of {self.risk_due:g}"] if self.risk_due < 1 else []
        if self.rows_due:
            cures.append(f"a risk of {self.risk:g} takes about {self.rows_due} calibration rows instead of {self.rows}")
        return ", and ".join([*cures] or [f"a risk of {self.risk:g} takes a model that errs less"])


def check_risk(risk: float) -> None:
    """Refuse a risk that is no share.

    Raises:
        UncertaintyError: If it is not in (0, 1).
    """
    if not 0 < risk < 1:
        raise UncertaintyError(f"Expected `risk` to be a number in (0, 1), but got {risk}.")


def choose_confidence(answers: Answers, labels_N: Tensor) -> str:
    """The confidence score whose most confident rows err least: the area under the risk-coverage curve is smallest.

    Source: Geifman et al. 2019, Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers.
    """
    wrong_N = ((answers.label_B != labels_N) | ~answers.agreed).double()
    counts_N = torch.arange(1, len(wrong_N) + 1, dtype=torch.float64, device=wrong_N.device)

    def area(name: str) -> float:
        order_N = answers.confidence(name).sort(descending=True, stable=True).indices
        return float((wrong_N[order_N].cumsum(0) / counts_N).mean())

    return min(CONFIDENCES, key=area)


def _between(low_N: Tensor, high_N: Tensor) -> Tensor:
    """Values between which and those of any row lies more than rounding, ascending, at most one between two rows."""
    order_N = high_N.argsort()
    low_N, high_N = low_N[order_N].double(), high_N[order_N].double()
    if len(low_N) < 2:
        return low_N[:0].cpu()
    # Of all rows above a gap the lowest counts.
    above_N = low_N.flip(0).cummin(0).values.flip(0)[1:]
    gap_N = above_N > high_N[:-1]
    return ((high_N[:-1] + above_N) / 2)[gap_N].cpu()


def _error(accepted_T: Tensor, wrong_T: Tensor) -> Tensor:
    """Wilson's upper bound on the share of wrong ones, at `LUCK` standard errors."""
    counts_T = accepted_T.double().clamp(min=1)
    share_T = wrong_T / counts_T
    spread_T = (share_T * (1 - share_T) / counts_T + LUCK**2 / (4 * counts_T**2)).sqrt()
    bound_T = (share_T + LUCK**2 / (2 * counts_T) + LUCK * spread_T) / (1 + LUCK**2 / counts_T)
    return bound_T.clamp(max=1)  # rounding may put it above


def _first(accepted_T: Tensor, error_T: Tensor, risk: float, delta: float) -> int:
    """Which test to begin with: the one in the middle of those that are likeliest to pass.

    How likely is known from the select rows alone. The last of them would skip most tests, but accept nothing where
    these rows were lucky; the first would be sure to pass, but may be followed by one that fails.
    """
    powers = [power(round(rows), error, risk, delta) for rows, error in zip(*_lists(accepted_T, error_T), strict=True)]
    likeliest = [index for index, power in enumerate(powers) if power >= max(powers) - PLATEAU]
    return likeliest[len(likeliest) // 2]


def power(rows: int, error: float, risk: float, delta: float) -> float:
    """How likely a test passes if so many rows are accepted, of which each is wrong with a probability."""
    most = largest_count(rows, risk, delta)  # wrong ones with which it passes
    return 0.0 if most < 0 else binomial_at_most(most, rows, error)


def _lists(*tensors: Tensor) -> Sequence[list[float]]:
    return [tensor.tolist() for tensor in tensors]
