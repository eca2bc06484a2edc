"""What travels over `/v1`: the shape of requests, answers and problems. No torch here.

Requests are read as these types, but for the numbers, and answers are tested against them; they describe the API.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dubio.serving.wire.schema import Explain, Incoming, RequestId, SampleCount, Wire


class Parameters(Incoming):
    """How to predict."""

    samples: SampleCount = None
    explain: Explain = None
    resize: bool = Field(
        default=True,
        description="Whether an image file of another size may be brought to the model's, where the training images "
        "were, too; if not, it is refused. The answer says of each file whether it was.",
    )


class PredictRequest(Incoming):
    """Instances to predict."""

    id: RequestId = None
    instances: list[Any] = Field(
        min_length=1,
        description="A list with one entry an instance, in raw values. Numbers or pixels come in the model's input "
        "shape, without a leading channel axis of 1, or flat in row-major order. The model normalises them itself. A "
        "model that was trained on "
        'pixels from 0 to 255 also takes PNG, JPEG and WebP files: `{"b64": "..."}`, or a data URL. They are turned '
        "upright as they say. If its training images were brought to one size, files of every size are, too, in the "
        "same way (see `input.files.resize` of the model); else they must have the model's own. "
        "A model of a table takes objects with a value for every column by name, null where it is missing; "
        "a model of texts takes strings.",
    )
    parameters: Parameters | None = Field(default=None, description="How to predict.")


class ModelName(Wire):
    """Who answered."""

    name: str
    version: str


class Deterministic(Wire):
    """The network with dropout off."""

    label: str
    probability: float = Field(description="Of `label`.")
    probabilities: list[float]


class MonteCarlo(Wire):
    """The committee: dropout on, `samples` fixed draws of masks."""

    samples: int = Field(description="How many members answered; may differ from instance to instance with `auto`.")
    label: str = Field(description="The class with the largest mean.")
    mean: list[float]
    std: list[float]


class Uncertainty(Wire):
    """In nats: predictive entropy = expected entropy (how unsure the members are, each by itself) + mutual information
    (how far they disagree)."""

    predictive_entropy: float
    expected_entropy: float
    mutual_information: float


class ColumnContribution(Wire):
    """What one column adds to the squared distance."""

    name: str = Field(description="Of the column; of plain numbers their place, counted from 0.")
    contribution: float = Field(description="Below 0 where the column makes others look likelier.")


class Neighbour(Wire):
    """A training row that looks to the network most like the instance."""

    row: int = Field(description="Its number in the source of the training, counted from 0.")
    distance: float = Field(description="Between the features of both, each of length 1; from 0 to 2.")
    text: str | None = Field(description="As the model reads it; None if the checkpoint does not keep it.")
    thumbnail: str | None = Field(description="A PNG as a data URL; None if the checkpoint does not keep it.")


class OutOfDistribution(Wire):
    """Whether the instance looks like the training data."""

    flagged: bool | None = Field(description="None when the model cannot promise a false-alarm rate; see `reason`.")
    p_value: float | None
    level: float | None = Field(description="Flagged when `p_value` is at or below it.")
    reason: (
        Literal[
            "unfamiliar",
            "uncertain",
            "out_of_range",
            "not_calibrated",
            "not_calibrated_for_these_samples",
            "calibration_too_small",
        ]
        | None
    )
    checkpoint: int | None = Field(
        default=None, description="With `explain`: whose answer is explained, of an ensemble's, counted from 1."
    )
    scores: dict[str, float] | None = Field(
        default=None,
        description="With `explain`: the p-value that each score alone would have. Only `p_value` carries the promise.",
    )
    squared_distance: float | None = Field(
        default=None,
        description="With `explain`: z^T S^-1 z of a table's row, z being its normalised numbers less the mean of the "
        "training rows, and S their covariance.",
    )
    columns: list[ColumnContribution] | None = Field(
        default=None,
        description="With `explain`: the columns that add most to it, the sum of z_i (S^-1 z)_i over a column's "
        "numbers; those of all columns sum to the squared distance.",
    )
    neighbours: list[Neighbour] | None = Field(
        default=None,
        description="With `explain`, of an image or a text: the nearest of the training rows that the model keeps.",
    )


class LabelSet(Wire):
    """The classes that the instance may have."""

    labels: list[str] | None = Field(
        description="The most probable first, at least one; None where no coverage is promised, see `reason`."
    )
    coverage: float | None = Field(
        description="The true class is in at least this share of the sets of instances like the training data."
    )
    reason: Literal["not_calibrated", "not_calibrated_for_these_samples", "calibration_too_small"] | None = Field(
        description="Why there is no set; None where there is."
    )


class DecisionAtRisk(Wire):
    """Whether the answer is accepted at one risk."""

    accepted: bool | None = Field(
        description="A flagged instance, and one whose two labels differ, never is. None where no risk is promised, "
        "see `reason`."
    )
    risk: float | None = Field(
        description="At most this share of the accepted answers to instances like the training data is wrong."
    )
    confidence: float | None = Field(description="Of that promise, over the draw of the calibration rows.")
    reason: (
        Literal[
            "not_calibrated",
            "not_calibrated_for_these_samples",
            "not_calibrated_for_ensembles",
            "calibration_too_small",
            "too_few_rows",
            "too_many_errors",
            "no_risk_promised",
        ]
        | None
    ) = Field(description="Why `accepted` is None; None where it is not.")


class Decision(DecisionAtRisk):
    """Whether the answer is accepted; where the model was calibrated for several risks, at the first of them."""

    others: list[DecisionAtRisk] = Field(description="At the other risks that the model was calibrated for.")


class ReadImage(Wire):
    """What was read of an image file."""

    height: int = Field(description="Of the picture in the file, once it is upright.")
    width: int = Field(description="As `height`.")
    oriented: bool = Field(description="Whether the picture was turned or mirrored, as the file's EXIF data say.")
    resized: bool = Field(
        description="Whether it was brought to the model's size as the training images were: bilinear with "
        "antialiasing, each side by itself, so that another aspect ratio is stretched."
    )


class PredictedInstance(Wire):
    """Both answers to one instance, and how far to trust them."""

    deterministic: Deterministic
    mc: MonteCarlo
    uncertainty: Uncertainty
    ood: OutOfDistribution
    label_set: LabelSet
    decision: Decision
    image: ReadImage | None = Field(description="None for an instance that is no image file.")


class PredictResponse(Wire):
    """One prediction an instance, in the order of the request."""

    id: str | None
    model: ModelName
    predictions: list[PredictedInstance]
