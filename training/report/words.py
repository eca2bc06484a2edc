"""Words: what a report says in sentences, and what follows from its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from dubio.training.report import content
from dubio.training.report.measure import SIGNIFICANCE
from dubio.training.report.resplits import beta_binomial
from dubio.uncertainty import FlagEProcess
from dubio.uncertainty.detection.label_sets import place

EPSILON = 0.05  # how likely a false alarm of the monitor may be, ever
CONTAMINATIONS = (0.05, 0.1, 0.2)  # shares of strangers whose alarm is timed
_STREAMS, _LONGEST = 21, 2000

NOT_PROMISED = (
    "How many strangers are flagged. It is measured, on the strangers named here; others may look more like the data.",
    "Anything about inputs that are not like the calibration rows: the false-alarm rate is that of inputs like them, "
    "and so are the error rates. Where classes become more or less frequent, both change.",
    "That a class has the promised false-alarm rate by itself: it is kept over all classes together.",
    "That a row which is not flagged is answered rightly. Only of accepted answers a share is promised to be right, "
    "where one is promised above: over all of them together, not of each class or of each answer.",
    "That a label set contains the true class of one certain input, or so often with these very calibration rows: its "
    "coverage is that of all inputs and all draws of calibration rows together.",
    "That mutual information or standard deviation say why the model is unsure: they say how far its members disagree.",
    "Anything about inputs that depend on each other, such as one image sent many times, in the monitor.",
    "That the figures hold for a group of people or things that the test rows do not name.",
)

ADVICE = (
    "Feed the flag of each request to an e-process (`dubio.uncertainty.FlagEProcess`), one for each client, and keep "
    "its state; equal inputs count once.",
    "On an alarm, look at the flagged inputs before anything else: a broken sensor and a new kind of input look alike.",
    "Calibrate again on fresh labelled rows after a change of source, and at least whenever the promise is looked at.",
    "Label a random share of the answers, too: drift that changes no input, only its meaning, raises no flag.",
)

CHANCE = "half-way from this version's figure to the end of its 95% interval: about a standard error"
PROMISED = "the promise itself"
LAW = "the promise's exact law (Beta-binomial): with as many calibration rows, worse has a chance below 1%"

RULES = tuple(
    content.Rule(number=number, article_13=article_13, article_15=article_15, change_plan=change_plan)
    for number, article_13, article_15, change_plan in (
        (
            "model, provenance",
            "13(3)(a), (b)(iv): what the system is",
            "",
            "description of modifications: what it replaces",
        ),
        ("data and splits", "13(3)(b)(vi): training, validation and test data", "", "modification protocol: data"),
        (
            "accuracy, NLL, Brier score with intervals",
            "13(3)(b)(ii): accuracy and its metrics",
            "15(3): declared accuracy",
            "modification protocol: performance evaluation",
        ),
        (
            "figures by class",
            "13(3)(b)(v): performance for specific groups, where classes are such",
            "15(3)",
            "impact assessment: who is served worse",
        ),
        (
            "calibration error, reliability diagram",
            "13(3)(b)(vii): how to interpret the output",
            "15(1): consistent accuracy",
            "modification protocol: performance evaluation",
        ),
        (
            "risk and coverage",
            "13(3)(d): human oversight, which answers a person should see",
            "15(1)",
            "impact assessment: work that is left to people",
        ),
        (
            "promised and measured errors of accepted answers",
            "13(3)(b)(ii), (d): what can be expected of answers that no person sees",
            "15(3), 15(1)",
            "modification protocol: acceptance criteria",
        ),
        (
            "label sets: coverage and size",
            "13(3)(b)(vii): how to interpret the output",
            "15(3)",
            "modification protocol: acceptance criteria",
        ),
        (
            "promised and measured false alarms, resplits",
            "13(3)(b)(ii): what can be expected",
            "15(4): resilience to errors and inconsistencies",
            "modification protocol: acceptance criteria",
        ),
        (
            "strangers, ROC",
            "13(3)(b)(iii): foreseeable circumstances of risk",
            "15(4)",
            "impact assessment: risks of unknown inputs",
        ),
        ("damaged inputs", "13(3)(b)(ii), (iii): robustness", "15(4): robustness", "modification protocol: robustness"),
        (
            "most uncertain and most unfamiliar inputs",
            "13(3)(b)(vii), (d): how people interpret and oversee",
            "",
            "impact assessment: known weaknesses",
        ),
        ("what is not promised", "13(3)(b)(iii): limitations", "15(1)", "impact assessment: residual risk"),
        (
            "monitoring",
            "13(3)(e), (f): maintenance, logs",
            "15(4): feedback and drift",
            "modification protocol: when to change",
        ),
        (
            "what a new version must show",
            "13(3)(c): changes that were determined beforehand",
            "15(1): throughout the lifecycle",
            "modification protocol: acceptance criteria; impact assessment",
        ),
    )
)


def monitoring(promise: content.Promise, others: Sequence[content.OutOfDistribution]) -> content.Monitoring:
    """The settings of the monitor, and how soon it would have noticed the strangers that are caught least often."""
    hardest = min((each.flagged.rate for each in others), default=None)
    delays: list[dict[str, float | None]] = []
    for share in CONTAMINATIONS if hardest is not None else ():
        flagged = (1 - share) * promise.measured.rate + share * (hardest or 0.0)
        delays.append(
            {"out_of_distribution": share, "flagged": flagged, "median_inputs": _median_delay(promise.alpha, flagged)}
        )
    return content.Monitoring(
        alpha=promise.alpha, epsilon=EPSILON, alarm_at=1 / EPSILON, delays=delays, advice=list(ADVICE)
    )


def _median_delay(alpha: float, flagged: float, seed: int = 0) -> float | None:
    """Of several streams; None if most raise no alarm among their inputs."""
    generator = np.random.default_rng(seed)
    alarms = []
    for _ in range(_STREAMS):
        process = FlagEProcess(alpha=alpha, epsilon=EPSILON)
        while process.alarm is None and process.seen < _LONGEST:
            process = process.observe((generator.random(100) < flagged).tolist())
        alarms.append(process.alarm or float("inf"))
    median = float(np.median(alarms))
    return median if np.isfinite(median) else None


def requirements(
    answers: Mapping[str, content.Answer],
    promise: content.Promise,
    acceptances: Sequence[content.Acceptance],
    label_sets: content.LabelSets | None,
    others: Sequence[content.OutOfDistribution],
) -> list[content.Requirement]:
    """What these figures ask of a new version: each to lose a standard error at most, and the promises to be kept."""
    found = []

    def ask(figure: str, relation: Literal["at least", "at most"], bound: float, because: str) -> None:
        found.append(content.Requirement(figure=figure, relation=relation, bound=bound, because=because))

    for name, answer in answers.items():
        for figure, least in (("accuracy", True), ("nll", False), ("brier", False), ("ece", False), ("aurc", False)):
            measured: content.Measured = getattr(answer.after, figure)
            bound = _between(measured.value, measured.low if least else measured.high)
            ask(f"{name}: {figure}", "at least" if least else "at most", bound, CHANCE)
        known = [each.figures.accuracy for each in answer.by_class if each.figures is not None]
        worst = min(known, key=lambda each: each.value)
        ask(f"{name}: accuracy of the worst class", "at least", _between(worst.value, worst.low), CHANCE)
    rows, alarms = promise.calibration_rows, round(promise.level * (promise.calibration_rows + 1))
    ask("flagged test rows", "at most", _most(promise.measured.rows, alarms, rows), LAW)
    for each in acceptances:
        if each.accepted is not None:
            at = f"at a risk of {each.risk:g}"
            ask(f"errors among accepted rows {at}", "at most", each.risk, PROMISED)
            ask(f"accepted test rows {at}", "at least", _between(each.accepted.rate, each.accepted.low), CHANCE)
    if label_sets is not None:
        figure, covered = "test rows covered by their label set", label_sets.covered
        missing = label_sets.calibration_rows + 1 - place(label_sets.calibration_rows, label_sets.coverage)
        if label_sets.chance is None:
            ask(figure, "at least", _between(covered.rate, covered.low), CHANCE)
        else:
            ask(figure, "at least", 1 - _most(covered.rows, missing, label_sets.calibration_rows), LAW)
    for stranger in others:
        bound = _between(stranger.flagged.rate, stranger.flagged.low)
        ask(f"flagged among {stranger.name}", "at least", bound, CHANCE)
    return found


def _between(value: float, end: float) -> float:
    return (value + end) / 2


def _most(rows: int, alarms: int, calibration: int) -> float:
    """The largest share of so many rows that the law of a promise does not refute."""
    law_m = beta_binomial(rows, alarms, calibration + 1 - alarms)
    above_m = law_m[::-1].cumsum()[::-1]  # P(so many or more)
    return float(np.flatnonzero(above_m >= SIGNIFICANCE).max()) / rows
