"""What is promised about the answers that come from one way of asking members: all of them, or as many as it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dubio.uncertainty.detection import advice
from dubio.uncertainty.detection.adaptive import AdaptiveSampling, recorded
from dubio.uncertainty.detection.answers import Answers, LabelledAnswers
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.detector import Detector
from dubio.uncertainty.detection.label_sets import LabelSets
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.rounding import Rounding
from dubio.uncertainty.detection.scores import move
from dubio.uncertainty.detection.selective import Acceptance, AcceptanceTests, choose_confidence

# Deterministic class indices ``[B]`` and probabilities ``[B, C]``.
Classify = Callable[[DeterministicPass], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class AnswerPromises:
    """Which answers are accepted at each promised risk, and the label sets. Immutable.

    Attributes:
        acceptances: One a risk, in the order that they were asked for; none where none was.
        label_sets: Calibrated.
    """

    acceptances: tuple[Acceptance, ...]
    label_sets: LabelSets

    @classmethod
    def fit(
        cls,
        select: LabelledAnswers,
        calibration: LabelledAnswers,
        flag: Calibration,
        risks: Sequence[float] = (0.02,),
        label_sets: LabelSets | None = None,
    ) -> AnswerPromises:
        """Choose on the select split, then promise on the calibration split.

        Args:
            select: Its rows.
            calibration: Its rows, used for nothing else than this and the flag.
            flag: Its calibration, on the same rows.
            risks: Largest shares of wrong answers among the accepted ones, each for itself.
            label_sets: Says which; by default such as cover 95%.
        """
        wanted = label_sets or LabelSets("lac", "all", 0.95)
        confidence = choose_confidence(select.answers, select.labels_N)
        promise = {"alpha": flag.alpha, "delta": flag.delta}
        tests = [
            AcceptanceTests.fit(select, len(calibration), risk, **promise, confidence=confidence) for risk in risks
        ]
        rules = [each.calibrate(calibration, flag) for each in tests]
        chosen = LabelSets.fit(select.answers.mean_BC, select.labels_N, wanted.score, wanted.by, wanted.coverage)
        return cls(
            tuple(_advised(each, rules, calibration, flag) for each in tests),
            chosen.calibrate(
                calibration.answers.mean_BC, calibration.labels_N, calibration.sure_N, calibration.rounding
            ),
        )

    def check(self, flag: Calibration, num_classes: int) -> None:
        """Refuse what does not belong to this flag and so many classes.

        Raises:
            UncertaintyError: If it does not.
        """
        for acceptance in self.acceptances:
            acceptance.check(flag)
        self.label_sets.check(num_classes)

    def to(self, device: torch.device) -> AnswerPromises:
        """The same promises with their tensors on a device."""
        return replace(self, label_sets=move(self.label_sets, device))


def _advised(
    tests: AcceptanceTests, rules: Sequence[Acceptance], rows: LabelledAnswers, flag: Calibration
) -> Acceptance:
    """The rule of these tests; where there is none, with what would make one possible."""
    (rule,) = (each for each in rules if each.risk == tests.risk)
    if rule.refusal is None:
        return rule
    carried = [each.risk for each in rules if each.refusal is None and each.risk > tests.risk]
    return replace(
        rule,
        rows_due=advice.rows_due(tests, rows, flag),
        risk_due=min([advice.attainable_risk(tests, rows, flag), *carried]),
    )


def with_all_members(
    classify: Classify, detector: Detector, outputs: Outputs, labels_N: Tensor, rounding: Rounding
) -> LabelledAnswers:
    """The answers of all members.

    Args:
        classify: The deterministic prediction.
        detector: Gives the composite score.
        outputs: Of rows whose true class is known.
        labels_N: Their classes.
        rounding: How far the evaluations of another run may lie apart.
    """
    low_N, high_N = rounding.bounds(detector.scores, detector.ranks, outputs)
    answers = Answers(*classify(outputs.deterministic), outputs.summary.mean_BC)
    sure_N = torch.ones_like(labels_N, dtype=torch.bool)
    return LabelledAnswers(answers, labels_N, low_N, high_N, sure_N, rounding.probability)


def with_as_many_as_it_takes(
    classify: Classify,
    detector: Detector,
    outputs: Outputs,
    labels_N: Tensor,
    rounding: Rounding,
    stopping: AdaptiveSampling,
) -> LabelledAnswers:
    """The answers of as many members as each row takes; see `with_all_members`."""
    bounds = stopping.bounds(detector, outputs, rounding)
    stopped = stopping.run(detector, outputs.deterministic, recorded(outputs.probs_KBC))
    answers = Answers(*classify(outputs.deterministic), stopped.summary.mean_BC)
    return LabelledAnswers(
        answers, labels_N, bounds.lowest_B, bounds.highest_B, bounds.sure_B, 2 * rounding.probability
    )
