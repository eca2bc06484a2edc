"""The section: what the ``dubio`` key of a checkpoint holds, validated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dubio.models.inputs.spec import InputSpec
from dubio.models.spec import CommitteeSpec, Name, NetworkSpec, Plain, Provenance, Temperature

KEY = "dubio"
FORMAT_VERSION = 1


class Section(Plain):
    """Everything that makes a Lightning checkpoint servable.

    Attributes:
        format_version: of this section.
        network: how to build the network.
        input: what one input is.
        classes: names, in the order of the logits.
        temperature: divides the logits.
        committee: how to draw the members again.
        detector: fitted parts, see :mod:`dubio.uncertainty.detection.serialization`.
        calibration: sorted scores, alpha, delta and level, see :class:`dubio.uncertainty.Calibration`.
        provenance: where the model comes from.
        auto: when fewer members are enough, see :func:`dubio.uncertainty.detection.serialization.dump_stopping`; older
            files have none.
    """

    format_version: Literal[1]
    network: NetworkSpec
    input: InputSpec
    classes: Annotated[list[Name], Field(min_length=2, max_length=100_000)]
    temperature: Temperature
    committee: CommitteeSpec
    detector: dict[str, Any]
    calibration: dict[str, Any]
    provenance: Provenance
    auto: dict[str, Any] | None = None

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) != len(classes):
            raise ValueError("Expected every class name once.")
        return classes
