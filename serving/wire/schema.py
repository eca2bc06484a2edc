"""The base of every type on the wire, and what requests of both protocols hold. Knows neither HTTP nor torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

_ERRORS = {
    400: "Not JSON, or not what the protocol takes",
    401: "No API key, or an unknown one",
    403: "The API key is good for other things, or administration is off",
    404: "No such model or version",
    408: "The body came too slowly",
    409: "Not while the service controls its models itself",
    413: "Too many rows or bytes",
    415: "Compressed in another way than gzip or deflate",
    422: "Not what the model takes",
    503: "Not ready, or too much waits already",
    504: "Not ready in time",
}

# The type of pydantic's error for a key that looks like one of ours.
SLIP = "slip"
# How much it must: `sample` and `num_samples` look like `samples`, and `model_name` looks like nothing.
_LIKENESS = 0.75
# Unknown keys that are compared with ours, which takes a tenth of a millisecond for each; nobody writes more by hand.
_MOST_LOOKED_AT = 32

RequestId = Annotated[str | None, Field(max_length=256, description="A name of the caller's, echoed in the answer.")]
SampleCount = Annotated[
    Annotated[int, Field(ge=2)] | Literal["auto"] | None,
    Field(
        description="How many committee members to ask, from 2 to the committee's size (the default). Flags are "
        "calibrated for the whole committee, and for `auto`: as many members as each row takes until neither its label "
        "nor its flag is likely to change; the answer says how many that were."
    ),
]


class Wire(BaseModel):
    """Base of everything on the wire: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid")


class Incoming(Wire):
    """Base of what callers send: nothing is converted on the way."""

    model_config = ConfigDict(strict=True)

    @classmethod
    def explain_unknown(cls, key: str) -> str:
        """What to do about a key that is none of the fields."""
        from dubio.models.errors import did_you_mean  # which brings torch along

        return did_you_mean(key, cls.model_fields, f"known: {', '.join(cls.model_fields) or 'none'}.")


class Extensible(Incoming):
    """Base of what callers send in a format that others own and extend.

    An unknown key is theirs and is left alone, unless it looks like a slip in one of ours.
    """

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _refuse_slips(cls, given: Any) -> Any:
        if isinstance(given, dict) and not given.keys() <= cls.model_fields.keys():
            unknown = [key for key in given if key not in cls.model_fields]
            for key in unknown[:_MOST_LOOKED_AT]:
                if cure := cls.explain_slip(key):
                    raise PydanticCustomError(SLIP, "", {"key": key, "cure": cure})
        return given

    @classmethod
    def explain_slip(cls, key: str) -> str | None:
        """What to do about an unknown key that cannot be left alone; None for one that can."""
        from dubio.models.errors import nearest  # which brings torch along

        name = nearest(key, cls.model_fields, _LIKENESS)
        return name and f"did you mean `{name}`?"


class Problem(Wire):
    """An error after RFC 9457."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What was wrong, the rule, and how to mend it.")
    request_id: str = Field(description="Also in the X-Request-Id header and in the service's log.")


class ForeignError(Wire):
    """An error as the Open Inference Protocol and TensorFlow Serving have it."""

    error: str = Field(description="What was wrong, the rule, and how to mend it.")


def describe_content(kind: type[Wire], media_type: str = "application/json") -> dict[str, Any]:
    """OpenAPI for a body of this kind."""
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}


def describe_errors(body: dict[str, Any], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI for errors of these statuses, whose body FastAPI knows as `body`: a `model`, or a `content`."""
    return {status: {"description": _ERRORS[status], **body} for status in statuses}
