"""What travels over `/v1/feedback` and `/v1/models/NAME/quality`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from dubio.serving.v1.review_schema import Label
from dubio.serving.wire.schema import Incoming, Wire

MOST_LABELS = 1000


class TrueLabel(Incoming):
    """What one row of a request really was."""

    request_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")] = Field(
        description="`X-Request-Id` of the request's answer."
    )
    row: int = Field(default=0, ge=0, le=2**31 - 1, description="Of the request, counted from 0.")
    label: Label = Field(description="The true class.")
    new_label: bool = Field(default=False, description="Whether `label` may be a class that the model does not know.")


class Feedback(Incoming):
    """True labels."""

    labels: list[TrueLabel] = Field(min_length=1, max_length=MOST_LABELS, description="All are taken, or none.")


class FeedbackTaken(Wire):
    """What became of true labels."""

    joined: int = Field(description="To rows that are stored, on disk.")
    not_stored: list[int] = Field(description="The places in `labels` of those whose row is not stored (any more).")


class Share(Wire):
    """A share with its interval of 95%; null where no row tells."""

    value: float | None
    low: float | None
    high: float | None
    rows: int = Field(description="That tell.")


class Accuracy(Wire):
    """Shares of right answers."""

    flagged: Share
    not_flagged: Share


class OverallAccuracy(Accuracy):
    """The same, and over both together."""

    all: Share = Field(description="As often as both occur; null unless rows that are not flagged are sampled.")


class VersionQuality(Wire):
    """How good the answers of one version were."""

    version: str
    rows: int = Field(description="Stored rows about which something was said; the newest 20000 count.")
    accuracy: OverallAccuracy = Field(description="Of the committee.")
    deterministic_accuracy: Accuracy
    calibration_error: Share = Field(description="Expected calibration error in 15 bins, of rows that are not flagged.")
    label_set_coverage: Share = Field(description="Of rows that are not flagged and of a class that the model knows.")
    flag_precision: Share = Field(description="Flagged rows that are strangers, or whose answer is wrong.")
    ood_among_flagged: Share = Field(description="Flagged rows not for us, or of a class the model does not know.")


class Quality(Wire):
    """How good a model's answers were, by version, the one that answered last first."""

    model: str
    confidence: float = Field(description="Of every interval.")
    versions: list[VersionQuality]
