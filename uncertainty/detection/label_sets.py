"""Label sets: the classes that an input may have, so that the true one is among them as often as promised.

With n calibration rows and q the ceil((n + 1) coverage)-th smallest of the scores of their true classes, the set of an
input holds every class whose score is at most q, and the most probable one. It contains the true class with probability
at least `coverage`, over the draw of the calibration rows and of the input together; the share over many inputs with
one calibration is a little more or less (it follows Beta(k, n + 1 - k) or lies above it).

The scores of a class, of the members' mean probabilities p:

- `lac`: 1 - p of the class. Gives the smallest sets on average.
- `aps`: the sum of the probabilities larger than that of the class. Gives larger sets to harder inputs. This is the
  set of Romano et al. without randomisation: the same input always gets the same set, which is at least as large.
- `raps`: the same, and `penalty` for every rank beyond `free_ranks`. Gives fewer unlikely classes.

`by` says for whom the promise holds: for `all` inputs together; by true `class`, for each of them; or by `predicted`
class, for the inputs of each. Each group then has a quantile of its own, and one with too few rows for the promise gets
every class into its sets.

Source:
    Sadinle, Lei and Wasserman 2019 (LAC); Romano, Sesia and Candes 2020 (APS); Angelopoulos et al. 2021, Uncertainty
    Sets for Image Classifiers (RAPS, and how its two numbers are chosen); Vovk 2012 (the groups).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dubio.uncertainty.errors import NotFitted, UncertaintyError

SCORES = ("lac", "aps", "raps")
GROUPS = ("all", "class", "predicted")
PENALTIES = (0.001, 0.01, 0.1, 0.2, 0.5)
UNBOUNDED = torch.finfo(torch.float64).max  # no score is larger


@dataclass(frozen=True)
class LabelSets:
    """A rule for label sets; see the module. Immutable.

    Attributes:
        score: One of `SCORES`.
        by: One of `GROUPS`.
        coverage: Promised lower bound on the share of inputs whose set contains the true class.
        penalty: Of `raps`.
        free_ranks: Of `raps`.
        quantiles_G: The largest score in a set, of all or of each class; None until `calibrate`.
    """

    score: str
    by: str
    coverage: float
    penalty: float = 0.0
    free_ranks: int = 0
    quantiles_G: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse values that no fit gives."""
        if self.score not in SCORES or self.by not in GROUPS:
            raise UncertaintyError(
                f"Expected `score` to be one of {list(SCORES)} and `by` one of {list(GROUPS)}, but got "
                f"{str(self.score)[:20]!r} and {str(self.by)[:20]!r}."
            )
        if not 0 < self.coverage < 1:
            raise UncertaintyError(f"Expected `coverage` to be a number in (0, 1), but got {self.coverage}.")
        if not 0 <= self.penalty < math.inf or not 0 <= self.free_ranks < 2**31:
            raise UncertaintyError(
                f"Expected `penalty` and `free_ranks` to be numbers of at least 0, but got {self.penalty} and "
                f"{self.free_ranks:.0f}."
            )

    def check(self, num_classes: int) -> None:
        """Refuse a rule that was calibrated for another number of classes, or not at all.

        Raises:
            UncertaintyError: If it is so.
        """
        due, got = 1 if self.by == "all" else num_classes, 0 if self.quantiles_G is None else len(self.quantiles_G)
        if got != due:
            raise UncertaintyError(f"Expected {due} quantiles by {self.by} for {num_classes} classes, but got {got}.")

    @classmethod
    def fit(
        cls, mean_NC: Tensor, labels_N: Tensor, score: str = "lac", by: str = "all", coverage: float = 0.95
    ) -> LabelSets:
        """Choose what is not said on the select split: for `raps` the numbers that give the smallest sets.

        Args:
            mean_NC: The members' mean probabilities of the select rows.
            labels_N: Their true classes.
            score: One of `SCORES`.
            by: One of `GROUPS`.
            coverage: The promise to come, in (0, 1).
        """
        rule = cls(score, by, coverage)
        if score != "raps":
            return rule
        rank_N = 1 + _rank(mean_NC.double()).gather(-1, labels_N.unsqueeze(-1)).squeeze(-1)
        free = int(_quantile(rank_N.double(), coverage, most=mean_NC.shape[-1]))
        tried = [replace(rule, penalty=penalty, free_ranks=free) for penalty in PENALTIES]

        def size(each: LabelSets) -> float:
            return float(each.calibrate(mean_NC, labels_N)(mean_NC).double().sum(-1).mean())

        return min(tried, key=size)

    def calibrate(
        self, mean_NC: Tensor, labels_N: Tensor, sure_N: Tensor | None = None, rounding: float = 0.0
    ) -> LabelSets:
        """The same rule with quantiles that keep the promise.

        Args:
            mean_NC: The members' mean probabilities of the calibration rows.
            labels_N: Their true classes.
            sure_N: Whether `rounding` holds for the row; by default for all.
            rounding: How far two evaluations of a probability may lie apart.
        """
        scores_NC = self.scores(mean_NC, rounding)
        score_N = scores_NC.gather(-1, labels_N.unsqueeze(-1)).squeeze(-1)
        if sure_N is not None:
            score_N = score_N.masked_fill(~sure_N, UNBOUNDED)
        if self.by == "all":
            return replace(self, quantiles_G=torch.tensor([_quantile(score_N, self.coverage)], dtype=torch.float64))
        if self.by == "class":
            in_NC = torch.nn.functional.one_hot(labels_N, mean_NC.shape[-1]).bool()
        else:
            # A row for which another evaluation may predict another class counts, as the least fitting, for both.
            in_NC = mean_NC.double() >= mean_NC.double().amax(-1, keepdim=True) - 2 * rounding
            if sure_N is not None:
                in_NC = in_NC | ~sure_N.unsqueeze(-1)
            score_N = score_N.masked_fill(in_NC.sum(-1) > 1, UNBOUNDED)
        quantiles = [_quantile(score_N[in_N], self.coverage) for in_N in in_NC.T]
        return replace(self, quantiles_G=torch.tensor(quantiles, dtype=torch.float64))

    def scores(self, mean_BC: Tensor, rounding: float = 0.0) -> Tensor:
        """Of every class, ``[B, C]`` in float64; higher = less like the true one.

        Args:
            mean_BC: The members' mean probabilities.
            rounding: How far another evaluation's may lie from them; the largest scores that it may have are given.
        """
        probs_BC = mean_BC.double()
        if self.score == "lac":
            return 1 - probs_BC + rounding
        descending_BC = probs_BC.sort(-1, descending=True).values
        sums_BC = torch.cat([torch.zeros_like(descending_BC[:, :1]), descending_BC.cumsum(-1)], dim=-1)
        rank_BC = _rank(probs_BC, 2 * rounding)
        above_BC = sums_BC.gather(-1, rank_BC)
        if rounding:  # then a class counts as larger than itself
            rank_BC = rank_BC - 1
            above_BC = above_BC - probs_BC + rounding * rank_BC
        if self.score == "raps":
            return above_BC + self.penalty * (1 + rank_BC - self.free_ranks).clamp(min=0)
        return above_BC

    def __call__(self, mean_BC: Tensor) -> Tensor:
        """Which classes are in the set of each input, ``[B, C]``.

        Args:
            mean_BC: The members' mean probabilities, of as many members as at calibration.

        Raises:
            NotFitted: If the rule is not calibrated.
        """
        if self.quantiles_G is None:
            raise NotFitted("Expected calibrated label sets; call calibrate() with the calibration split first.")
        top_B1 = mean_BC.argmax(-1, keepdim=True)
        quantiles = self.quantiles_G.to(mean_BC.device)
        limits = quantiles[top_B1] if self.by == "predicted" else quantiles
        return (self.scores(mean_BC) <= limits).scatter(-1, top_B1, value=True)

    @property
    def unbounded(self) -> list[int]:
        """The groups with too few calibration rows, whose sets hold every class."""
        quantiles = self.quantiles_G.tolist() if self.quantiles_G is not None else []
        return [group for group, quantile in enumerate(quantiles) if quantile == UNBOUNDED]


def rows_for(coverage: float) -> int:
    """The fewest calibration rows, of each group, whose sets do not hold every class."""
    rows = math.ceil(coverage / (1 - coverage))
    return next(n for n in (rows - 1, rows, rows + 1) if place(n, coverage) <= n and n > 0)


def place(rows: int, coverage: float) -> int:
    """Which of the scores of so many rows is the quantile: the smallest k with k / (n + 1) >= coverage."""
    found = math.ceil((rows + 1) * coverage)
    # (n + 1) coverage may be a whole number and be computed as a little more.
    return found - 1 if (found - 1) / (rows + 1) >= coverage else found


def _quantile(scores_N: Tensor, coverage: float, most: float = UNBOUNDED) -> float:
    found = place(len(scores_N), coverage)
    return float(scores_N.sort().values[found - 1]) if found <= len(scores_N) else most


def _rank(probs_BC: Tensor, tolerance: float = 0.0) -> Tensor:
    """How many classes have more than each one's probability less the tolerance, ``[B, C]``."""
    ascending_BC = probs_BC.sort(-1).values
    larger = torch.searchsorted(ascending_BC, probs_BC - tolerance, right=True)
    return probs_BC.shape[-1] - larger
