"""What travels over `/v1`: the shape of requests, answers and problems. No torch here.

Bodies are parsed and written by hand (`parsing.py`, `answers.py`) because validating thousands of numbers one
by one costs more than predicting with them; these types are the contract those two are tested against, the
source of the accepted keys, and the OpenAPI description.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Wire(BaseModel):
    """Base of everything on the wire: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid")


class Parameters(Wire):
    """How to predict."""

    samples: Annotated[int, Field(ge=2)] | Literal["auto"] | None = Field(
        default=None,
        description="How many committee members to ask, from 2 to the committee's size (the default). "
        "Flags are calibrated for the whole committee, and for `auto`: as many members as each instance takes until "
        "neither its label nor its flag is likely to change.",
    )


class PredictRequest(Wire):
    """Instances to predict."""

    id: str | None = Field(default=None, max_length=256, description="Echoed in the answer.")
    instances: list[Any] = Field(
        min_length=1,
        description="Raw values, one entry an instance: in the model's input shape, without a leading "
        "channel axis of 1, or flat in row-major order. The model normalises them itself. A model that was trained on "
        'pixels from 0 to 255 also takes PNG and JPEG files of its own size: `{"b64": "..."}`, or a data URL. '
        "A model of a table takes objects with a value for every column by name, null where it is missing; "
        "a model of texts takes strings.",
    )
    parameters: Parameters | None = None


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
    """In nats: predictive = expected (the data's) + mutual information (the model's own ignorance)."""

    predictive_entropy: float
    expected_entropy: float
    mutual_information: float


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


class PredictedInstance(Wire):
    """Both answers to one instance, and how far to trust them."""

    deterministic: Deterministic
    mc: MonteCarlo
    uncertainty: Uncertainty
    ood: OutOfDistribution


class PredictResponse(Wire):
    """One prediction an instance, in the order of the request."""

    id: str | None
    model: ModelName
    predictions: list[PredictedInstance]


class Problem(Wire):
    """An error after RFC 9457."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What was wrong, the rule, and how to mend it.")
    request_id: str = Field(description="Also in the X-Request-Id header and in the service's log.")


class OpenInferenceError(Wire):
    """An error of the Open Inference Protocol."""

    error: str


def reference(kind: type[Wire]) -> dict[str, str]:
    """A JSON schema that points to `kind` among the OpenAPI components."""
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
