"""Adaptive sampling: ask a few members first, and the others only about inputs that they could still change.

A row stops at the first stage at which neither its label nor its flag is in doubt any more. Its score is the composite
score at that stage, which depends on the row alone: members, stages and rules were all fixed on the select split. So
this procedure is a score like any other, and a calibration of its own keeps the promise for it exactly, whatever the
rules are worth. What they decide is how many members are asked, and how seldom another answer comes out than that of
all members. A row so close to a threshold that rounding decides where it stops is calibrated with the largest of the
scores that may come out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from dubio.uncertainty.detection.conformal import Calibration, level
from dubio.uncertainty.detection.detector import Detector, Verdict
from dubio.uncertainty.detection.ecdf import Ranks, composite
from dubio.uncertainty.detection.measures import Summary, total
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.rounding import Rounding, distinct, varies
from dubio.uncertainty.detection.scores import Score, move
from dubio.uncertainty.errors import NotFitted, UncertaintyError

STAGES = (8, 16, 32)
# A label is never settled with fewer standard errors, even if no select row asked for more.
LEAST_CLEARANCE = 3.0
# The share of the select rows that a rule may get wrong. With n rows, m of them wrong, a new row is one that the rule
# gets wrong with probability (m + 1) / (n + 1) at most.
WRONG_SHARE = 0.001
# The flag's threshold is set by the calibration split and only guessed here: so many standard errors either way.
THRESHOLD_ERRORS = 2.0

# Probabilities ``[K, B, C]`` of some rows (by index) from the members from a first one on, so many.
SampleMembers = Callable[[Tensor, int, int], Tensor]


@dataclass(frozen=True)
class Stage:
    """When so many members are enough.

    Attributes:
        members: How many have answered.
        ranks: Of each score that asks members, by its name, among the select scores of that many members: few members
            disagree less on average than many.
        below: Composite scores below this do not raise the flag, whatever the other members say.
        above: Composite scores above this raise it.
        clearance: Standard errors by which the label must lead.
    """

    members: int
    ranks: Mapping[str, Ranks]
    below: float
    above: float
    clearance: float

    def settles(self, clearance_B: Tensor, decided_B: Tensor, low_B: Tensor, high_B: Tensor) -> Tensor:
        """Whether neither label nor flag are in doubt any more, ``[B]``.

        Args:
            clearance_B: Of the label.
            decided_B: Whether the members do not matter for the flag.
            low_B: The composite score, as far as it is not to raise the flag.
            high_B: The same, as far as it is to raise it.
        """
        return (clearance_B > self.clearance) & (decided_B | (low_B < self.below) | (high_B > self.above))


@dataclass(frozen=True)
class Stopped:
    """What the members that were asked say about B inputs.

    Attributes:
        samples_B: How many members were asked about each.
        summary: Of what they said.
        ranks_SB: Of the detector's scores at the stage where the row stopped.
    """

    samples_B: Tensor
    summary: Summary
    ranks_SB: Tensor


@dataclass(frozen=True)
class Bounds:
    """How far rounding moves what a run says about B inputs.

    Attributes:
        lowest_B: The smallest composite scores that another run may give, in float64.
        highest_B: The largest.
        sure_B: Whether the members' mean that another run may give, of as many members or of others, lies no farther
            from this one's than `Rounding.probability`, twice.
    """

    lowest_B: Tensor
    highest_B: Tensor
    sure_B: Tensor


@dataclass(frozen=True)
class AdaptiveSampling:
    """A calibrated rule for asking no more members than it takes. Immutable.

    Attributes:
        stages: Before the last one, at which all members have answered; may be empty.
        committee: K, the number of all members.
        decided: Where the scores that do not ask members add up to more than this, an input is flagged, whatever the
            members say: no rank is less than 0.
        calibration: Of the procedure's own scores; None until `calibrate`.
    """

    stages: tuple[Stage, ...]
    committee: int
    decided: float
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        """Refuse stages that do not rise: a row would be asked no members, or the same ones again."""
        _refuse_unless_rising([stage.members for stage in self.stages], self.committee)

    @classmethod
    def fit(
        cls,
        detector: Detector,
        select: Outputs,
        rows: int,
        alpha: float = 0.05,
        delta: float = 0.05,
        stages: Sequence[int] = STAGES,
        rounding: Rounding | None = None,
    ) -> AdaptiveSampling:
        """Learn on the select split when few members say what all of them would.

        Args:
            detector: Its ranks were fitted on the same split.
            select: What all members say about it.
            rows: How many the calibration split will have; nothing else about it is looked at.
            alpha: The promise to come.
            delta: The promise to come.
            stages: How many members to ask at first, and then; those that are not fewer than all are left out.
            rounding: As measured, by default the least: so far beyond the select rows' ranks lie their thresholds.

        Raises:
            UncertaintyError: If the stages do not rise.
            CalibrationSetTooSmall: If there are too few rows for alpha and delta.
        """
        committee, n = len(select.probs_KBC), select.probs_KBC.shape[1]
        stages = [members for members in stages if members < committee]
        _refuse_unless_rising(stages, committee)
        rounding = rounding or detector.least_rounding
        composite_N = detector.score(select)
        _, highest_N = rounding.bounds(detector.scores, detector.ranks, select)
        lowest, highest = _thresholds(composite_N, highest_N, level(rows, alpha, delta), rows)
        asking = [score for score in detector.scores if score.asks_members]
        rows_N = distinct(select.deterministic.inputs_BF)
        label_N = select.summary.mean_BC.argmax(-1)
        wrong = math.floor(WRONG_SHARE * n)
        fitted = []
        for members in stages:
            few = Outputs(select.deterministic, select.probs_KBC[:members])
            scores = {score.name: score.score(few)[rows_N] for score in asking}
            if not all(map(varies, scores.values())):  # so few members all say the same: the next may tell rows apart
                continue
            ranks = {name: Ranks.fit(score_N) for name, score_N in scores.items()}
            low_N, high_N = rounding.bounds(detector.scores, {**detector.ranks, **ranks}, few)
            below = -_bound(-low_N[composite_N >= lowest], wrong)
            above = _bound(high_N[composite_N <= highest], wrong) if bool((composite_N > highest).any()) else math.inf
            turned_N = few.summary.mean_BC.argmax(-1) != label_N
            clear = _bound(clearance(few, committee)[turned_N], wrong)
            fitted.append(Stage(members, ranks, below, above, max(clear, LEAST_CLEARANCE)))
        return cls(tuple(fitted), committee, highest)

    def calibrate(
        self,
        detector: Detector,
        outputs: Outputs,
        alpha: float = 0.05,
        delta: float = 0.05,
        rounding: Rounding | None = None,
    ) -> AdaptiveSampling:
        """The same rule with a level of its own: the very procedure is gone through with the calibration split.

        Args:
            detector: As fitted with.
            outputs: What all members say about the calibration split; each row is shown no more than it asks for.
            alpha: Promised upper bound on the false-alarm rate.
            delta: One minus the confidence of the promise.
            rounding: As measured; by default the least.

        Raises:
            CalibrationSetTooSmall: If there are too few rows for alpha and delta.
        """
        bounds = self.bounds(detector, outputs, rounding or detector.least_rounding)
        return replace(self, calibration=Calibration.fit(bounds.highest_B, alpha, delta))

    def bounds(self, detector: Detector, outputs: Outputs, rounding: Rounding) -> Bounds:
        """What another run may give.

        Args:
            detector: As fitted with.
            outputs: What all members say.
            rounding: How far the evaluations of another run may lie apart.
        """
        asking = [score for score in detector.scores if score.asks_members]
        fixed = [score for score in detector.scores if not score.asks_members]
        fixed_low_B, fixed_high_B = rounding.bounds(fixed, detector.ranks, outputs)
        highest_B, lowest_B = torch.full_like(fixed_high_B, -math.inf), torch.full_like(fixed_high_B, math.inf)
        open_B = torch.ones_like(highest_B, dtype=torch.bool)
        least_BC = torch.full_like(outputs.probs_KBC[0], math.inf)
        most_BC = -least_BC
        for stage in (*self.stages, None):
            few = Outputs(outputs.deterministic, outputs.probs_KBC[: stage.members if stage else self.committee])
            low_B, high_B = rounding.bounds(asking, stage.ranks if stage else detector.ranks, few)
            low_B, high_B = fixed_low_B + low_B, fixed_high_B + high_B
            may_B = surely_B = torch.ones_like(open_B)
            if stage:
                most_B, least_B = (clearance(few, self.committee, sign * rounding.lead) for sign in (1, -1))
                may_B = stage.settles(most_B, self._decides(fixed_high_B, asking), low_B, high_B)
                surely_B = stage.settles(least_B, self._decides(fixed_low_B, asking), high_B, low_B)
            highest_B = torch.where(open_B & may_B, highest_B.maximum(high_B), highest_B)
            lowest_B = torch.where(open_B & may_B, lowest_B.minimum(low_B), lowest_B)
            mean_BC, stops_B1 = few.probs_KBC.mean(0), (open_B & may_B).unsqueeze(-1)
            least_BC = torch.where(stops_B1, least_BC.minimum(mean_BC), least_BC)
            most_BC = torch.where(stops_B1, most_BC.maximum(mean_BC), most_BC)
            open_B = open_B & ~surely_B
        return Bounds(lowest_B, highest_B, (most_BC - least_BC).amax(-1) <= rounding.probability)

    def run(self, detector: Detector, deterministic: DeterministicPass, sample: SampleMembers) -> Stopped:
        """Ask stage by stage, until every row has stopped."""
        probs_KBC = deterministic.logits_BC.new_empty((0, *deterministic.logits_BC.shape))
        fixed = detector.rank_without_members(deterministic)
        asking = [score for score in detector.scores if score.asks_members]
        open_B = torch.arange(probs_KBC.shape[1], device=probs_KBC.device)
        none_B = torch.zeros(open_B.shape, dtype=torch.float64, device=open_B.device)
        fixed_B = composite(torch.stack([none_B, *fixed.values()]))
        decided_B = self._decides(fixed_B, asking)
        done: list[_Done] = []
        for stage in (*self.stages, None):  # at last all members
            members, stage_ranks = (stage.members, stage.ranks) if stage else (self.committee, detector.ranks)
            more_KBC = sample(open_B, len(probs_KBC), members - len(probs_KBC))
            probs_KBC = torch.cat([probs_KBC, more_KBC]) if len(probs_KBC) else more_KBC
            seen = Outputs(deterministic, probs_KBC)
            known = fixed | {score.name: stage_ranks[score.name](score.score(seen)) for score in asking}
            asked = _Done(open_B, members, torch.stack([known[score.name] for score in detector.scores]), seen.summary)
            if stage is None:
                done.append(asked)
                break
            score_B = composite(torch.stack([fixed_B, *(known[score.name] for score in asking)]))
            settled_B = stage.settles(clearance(seen, self.committee), decided_B, score_B, score_B)
            # By index: torch looks up a mask anew for each tensor.
            going = (~settled_B).nonzero().squeeze(1)
            if not len(going):
                done.append(asked)
                break
            if len(going) < len(open_B):
                done.append(asked.take(settled_B.nonzero().squeeze(1)))
                open_B, probs_KBC = open_B[going], probs_KBC[:, going]
                fixed_B, decided_B = fixed_B[going], decided_B[going]
                fixed = {name: rank_B[going] for name, rank_B in fixed.items()}
        return _in_order(done)

    def _decides(self, fixed_B: Tensor, asking: Sequence[Score]) -> Tensor:
        """Whether the members do not matter for the flag, given what the scores that do not ask them add up to."""
        return (fixed_B > self.decided) if asking else torch.ones_like(fixed_B, dtype=torch.bool)

    def judge(self, detector: Detector, stopped: Stopped) -> Verdict:
        """P-values, flags and reasons.

        Raises:
            NotFitted: If the rule is not calibrated.
        """
        if self.calibration is None:
            raise NotFitted("Expected a calibrated stopping rule; call calibrate() with the calibration split first.")
        return detector.verdict(stopped.ranks_SB, self.calibration)

    def describe(self) -> dict[str, list[int]]:
        """At which numbers of members a row may stop, as plain data."""
        return {"stages": [*(stage.members for stage in self.stages), self.committee]}

    def to(self, device: torch.device) -> AdaptiveSampling:
        """The same rule with its tensors on a device."""
        stages = tuple(
            replace(stage, ranks={name: move(ranks, device) for name, ranks in stage.ranks.items()})
            for stage in self.stages
        )
        return replace(self, stages=stages, calibration=self.calibration and move(self.calibration, device))


def recorded(probs_KBC: Tensor) -> SampleMembers:
    """Ask members whose answers are known already."""
    return lambda rows, first, count: probs_KBC[first : first + count, rows]


@dataclass(frozen=True)
class _Done:
    """Rows that stopped at one stage: which they are, and what is known about them, as in `Stopped`."""

    rows_R: Tensor
    members: int
    ranks_SR: Tensor
    summary: Summary

    def take(self, some_R: Tensor) -> _Done:
        """The same of some of them, by index."""
        measures = (value[some_R] for value in vars(self.summary).values())
        return _Done(self.rows_R[some_R], self.members, self.ranks_SR[:, some_R], Summary(*measures))


def _in_order(done: Sequence[_Done]) -> Stopped:
    """What is known about all rows, as they were given."""
    samples = [torch.full_like(part.rows_R, part.members) for part in done]
    if len(done) == 1:
        return Stopped(samples[0], done[0].summary, done[0].ranks_SR)
    order_B = torch.cat([part.rows_R for part in done]).argsort()
    measures = zip(*(vars(part.summary).values() for part in done), strict=True)
    return Stopped(
        torch.cat(samples)[order_B],
        Summary(*(torch.cat(parts)[order_B] for parts in measures)),
        torch.cat([part.ranks_SR for part in done], dim=1)[:, order_B],
    )


def clearance(outputs: Outputs, committee: int, rounding: float = 0.0) -> Tensor:
    """How many standard errors the most probable class leads by, ``[B]``; infinity where it cannot be overtaken.

    The members of a committee are finitely many, and k of them are known. The mean lead over another class among all
    then differs from that among the known ones with standard error s sqrt((1 - k / K) / k), where s is the standard
    deviation of the lead with divisor k - 1. The class with the smallest ratio counts.

    No lead changes by more than 1 from member to member. So a lead whose sum over the known members is larger than
    the number of the others is final, whatever they say.

    Args:
        outputs: Of the first k members, at least two.
        committee: K, the number of all members.
        rounding: By how much the lead may be larger and its standard error smaller, or the other way round if negative.

    Source: Cochran 1977, section 2.6.
    """
    probs_KBC, mean_BC = outputs.probs_KBC, outputs.summary.mean_BC
    known = len(probs_KBC)
    top_B1 = mean_BC.argmax(-1, keepdim=True)
    lead_BC = mean_BC.gather(-1, top_B1) - mean_BC
    leads_KBC = probs_KBC.gather(-1, top_B1.expand(known, -1, -1)) - probs_KBC
    squares_BC = total((leads_KBC - lead_BC).square())
    error_BC = (squares_BC * ((1 - known / committee) / known / (known - 1))).sqrt()
    if rounding:
        lead_BC, error_BC = lead_BC + rounding, (error_BC - rounding).clamp(min=0)
    # Members that agree to the last bit leave no doubt, unless what they agree on is a tie.
    ratio_BC = torch.where(lead_BC > 0, lead_BC / error_BC, 0.0)
    final_BC = known * lead_BC > committee - known
    return ratio_BC.masked_fill(final_BC, torch.inf).scatter(-1, top_B1, torch.inf).amin(-1)


def _refuse_unless_rising(members: Sequence[int], committee: int) -> None:
    if not all(low < high for low, high in pairwise([1, *members, committee])):
        raise UncertaintyError(
            f"Expected stages of at least 2 members that rise to less than the committee's {committee}, but got "
            f"{list(members)}."
        )


def _thresholds(score_N: Tensor, highest_N: Tensor, flagged: float, rows: int) -> tuple[float, float]:
    """Between which scores the calibration will put the flag's threshold, as far as the select split can tell.

    Args:
        score_N: The composite scores of the select split.
        highest_N: The largest that another evaluation may give.
        flagged: The level that `rows` calibration scores will get.
        rows: How many the calibration split will have.
    """
    spread = math.exp(THRESHOLD_ERRORS * math.sqrt(1 / (flagged * rows) + 1 / (flagged * len(score_N))))
    lowest = torch.quantile(score_N, 1 - min(1.0, flagged * spread))
    highest = torch.quantile(highest_N, 1 - flagged / spread)
    return float(lowest), float(highest)


def _bound(values_N: Tensor, wrong: int) -> float:
    """The largest but for so many; minus infinity if there are no more."""
    if len(values_N) <= wrong:
        return -math.inf
    return float(values_N.double().sort(descending=True).values[wrong])
