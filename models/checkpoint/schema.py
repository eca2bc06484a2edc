"""The schema: what the ``dubio`` key of a checkpoint holds, validated."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import field_validator

from dubio.models.checkpoint.data_record import Classes, Divisions
from dubio.models.checkpoint.explanation_record import ExplanationRecord
from dubio.models.inputs.spec import InputSpec
from dubio.models.spec import CommitteeSpec, NetworkSpec, Provenance, StrictModel, Temperature

KEY = "dubio"
FORMAT_VERSION: Final = 3  # of what calibrations write; flags of earlier ones mean something else


class Answers(StrictModel):
    """What is promised about answers, by who is asked."""

    all: dict[str, Any]
    auto: dict[str, Any]


class Metadata(StrictModel):
    """The ``dubio`` key: everything that makes a Lightning checkpoint servable.

    Attributes:
        format_version: Of this schema.
        network: How to build the network.
        input: What one input is.
        classes: Names, in the order of the logits.
        temperature: Divides the logits.
        committee: How to draw the members again.
        detector: Fitted scores, see `dubio.uncertainty.detection.serialization`.
        calibration: Sorted scores, alpha, delta and level, see `dubio.uncertainty.Calibration`.
        provenance: Where the model comes from.
        auto: When fewer members are enough, see `dubio.uncertainty.detection.serialization.dump_stopping`.
        divisions: Which rows it was trained and calibrated on; none if that is not known.
        answers: What is promised about answers of all members, and about those of as many as it takes, see
            `dubio.uncertainty.detection.serialization.dump_promises`; None if nothing is.
        explanation: What explains a flag; None if nothing does.
    """

    format_version: Literal[3]
    network: NetworkSpec
    input: InputSpec
    classes: Classes
    temperature: Temperature
    committee: CommitteeSpec
    detector: dict[str, Any]
    calibration: dict[str, Any]
    provenance: Provenance
    auto: dict[str, Any]
    divisions: Divisions
    answers: Answers | None
    explanation: ExplanationRecord | None

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) != len(classes):
            raise ValueError("Expected every class name once.")
        return classes
