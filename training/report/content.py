"""Content: what stands in `report.json`, and its schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

# Digits beyond these say nothing about a model; a share of rows has fewer.
_DIGITS = 6


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


Number = Annotated[float, Field(allow_inf_nan=False), PlainSerializer(_rounded)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """Base of every part: no unknown key."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(Part):
    """A figure with its 95% interval over the draw of the rows."""

    value: Number
    low: Number
    high: Number


class Rate(Part):
    """A share of rows with its exact 95% interval (Clopper and Pearson)."""

    count: Count
    rows: Count
    rate: Share
    low: Share
    high: Share


class Model(Part):
    """What was measured."""

    file: str
    network: str
    parameters: Count
    input: str
    shape: list[int]
    classes: list[str]
    members: Count
    sites: list[str]
    rates_factor: Number
    temperature: dict[str, Number]
    scores: list[str]
    provenance: dict[str, Any]


class Split(Part):
    """Rows of one split, by class in the order of the model's classes."""

    name: str
    rows: Count
    by_class: list[Count]


class Data(Part):
    """Where the rows come from, which configuration says how they are read, and how they were divided."""

    title: str
    configuration: str
    splits: list[Split]


class Figures(Part):
    """How good and how honest probabilities are; see `dubio.training.quality.Quality`."""

    accuracy: Measured
    nll: Measured
    brier: Measured
    ece: Measured
    adaptive_ece: Measured
    aurc: Measured


class ClassFigures(Part):
    """Of the test rows of one class: figures is None where there are none."""

    name: str
    rows: Count
    figures: Figures | None


class Bin(Part):
    """Of a reliability diagram: confidences above low, up to high."""

    low: Share
    high: Share
    rows: Count
    confidence: Share | None
    accuracy: Share | None


class Coverage(Part):
    """The error rate among the most confident share of the rows."""

    coverage: Share
    risk: Share


class Answer(Part):
    """One of the two answers: before the temperature, after it, class by class."""

    before: Figures
    after: Figures
    by_class: list[ClassFigures]
    reliability: list[Bin]
    risk_coverage: list[Coverage]


class Resplits(Part):
    """How often the promise was kept over divisions of the held-out rows, and how often its law says.

    `chance` is the probability that the law keeps it as seldom or more seldom: below 1% is not consistent with it. The
    divisions mix calibration and test rows, so this tests the procedure, not whether these rows are alike.
    """

    count: Count
    calibration_rows: Count
    measured_rows: Count
    within: Rate
    due: Share
    mean_rate: Share
    chance: Share
    consistent: bool


class Promise(Part):
    """The promised false-alarm rate, and what was measured.

    `chance` is the probability of so many flagged test rows or more by the exact law, Beta-binomial: below 1% is not
    consistent with the promise, or the test rows are not like the calibration rows.
    """

    alpha: Share
    delta: Share
    level: Share
    calibration_rows: Count
    measured: Rate
    by_class: list[Rate | None]
    chance: Share
    consistent: bool
    resplits: Resplits


class AcceptanceResplits(Part):
    """How often a rule for accepting answers that was calibrated on some held-out rows breaks its promise.

    A rule is broken if it errs more than promised on all held-out rows: that happens in a share delta of the divisions
    at most. `chance` is the probability of so many or more, if it is that share: below 1% is not consistent with the
    promise. The measured rows alone scatter; so their figures are told without a verdict.
    """

    count: Count
    calibration_rows: Count
    measured_rows: Count
    promised: Count
    broken: Rate
    mean_accepted: Share
    mean_wrong: Share | None
    within: Rate | None
    chance: Share
    consistent: bool


class Acceptance(Part):
    """The promised error rate of accepted answers, and what was measured.

    Where there is no promise, all that follows from one is None, and `reason` and `advice` say why and what would help.
    """

    risk: Share
    delta: Share
    confidence: str
    threshold: Number | None
    calibration_rows: Count
    reason: str | None
    advice: str | None
    accepted: Rate | None
    wrong: Rate | None
    wrong_by_class: list[Rate | None] | None
    consistent: bool | None
    resplits: AcceptanceResplits | None
    no_resplits: str | None


class LabelSets(Part):
    """The promised coverage of label sets, and what was measured.

    Sizes counts the test rows whose set has 1, 2, ... classes. For sets that promise the same to all inputs together,
    the number of missed test rows follows a Beta-binomial law or lies below it: `chance` is the probability of so many
    or more by the law, and below 1% is not consistent with it. For others there is no such law over all rows, and it
    is None.
    """

    score: str
    by: str
    coverage: Share
    calibration_rows: Count
    unbounded: list[str]
    covered: Rate
    by_class: list[Rate | None]
    sizes: list[Count]
    mean_size: Number
    chance: Share | None
    consistent: bool
    resplits: Resplits | None
    no_resplits: str | None


class OutOfDistribution(Part):
    """Inputs that are like no training data: how many are flagged, and how well the score tells them from test rows.

    The FPR95 is the share of test rows flagged at the threshold that catches 95% of the strangers.
    """

    name: str
    flagged: Rate
    auroc: Share
    fpr95: Share


class Settled(Part):
    """How far the first members' answer lies from that of all: mean over the rows of the largest difference."""

    members: Count
    mean: Number
    std: Number


class Corrupted(Part):
    """Test rows that were damaged."""

    name: str
    severity: Count
    rows: Count
    accuracy: dict[str, Share]
    predictive_entropy: Number
    flagged: Rate


class Example(Part):
    """A test row: what it is, and what was answered.

    It is `row` of the test split and `source_row` of the source, both counted from 0, and there it is found `at`.
    """

    row: Count
    source_row: Count
    at: str
    label: str
    answer: str
    probability: Share
    predictive_entropy: Number
    p_value: Share
    flagged: bool
    shown: str


class Requirement(Part):
    """What a new version must show on the same test rows before it replaces this one; `because` says how it follows."""

    figure: str
    relation: Literal["at least", "at most"]
    bound: Number
    because: str


class Monitoring(Part):
    """How to watch the model in service."""

    alpha: Share
    epsilon: Share
    alarm_at: Number
    delays: list[dict[str, Number | None]]
    advice: list[str]


class Rule(Part):
    """Which numbers answer which rule."""

    number: str
    article_13: str
    article_15: str
    change_plan: str


class Report(Part):
    """All of a report. Its date is the one thing that differs between two reports of the same model and data."""

    format_version: Literal[1]
    date: str
    model: Model
    data: Data
    answers: dict[str, Answer]
    promise: Promise
    acceptances: list[Acceptance]
    label_sets: LabelSets | None
    out_of_distribution: list[OutOfDistribution]
    settling: list[Settled]
    corruptions: list[Corrupted]
    most_uncertain: list[Example]
    most_unfamiliar: list[Example]
    not_promised: list[str]
    monitoring: Monitoring
    new_version: list[Requirement]
    rules: list[Rule]
