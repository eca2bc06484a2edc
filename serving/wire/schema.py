"""The base of every type on the wire, and what requests of both protocols hold. Knows neither HTTP nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field

_ERRORS = {
    400: "Not JSON, or not what the protocol takes",
    401: "No API key, or an unknown one",
    403: "The API key is good for other things, or administration is off",
    404: "No such model, version or stored answer",
    408: "The body came too slowly",
    409: "Not as the service or the model was set up, or not as things are",
    413: "Too many rows or bytes",
    415: "Compressed in another way than gzip or deflate",
    422: "Not what the model takes",
    503: "Not ready, or too much waits already",
    504: "Not ready in time",
}

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

Explain = Annotated[
    bool | None,
    Field(
        description="Whether to say of each row why it was flagged, or was not: the p-value of each score alone, of a "
        "table the columns that contribute most, of images and texts the nearest training rows. It takes one more pass "
        "of the network."
    ),
]


class Slip(NamedTuple):
    """A key that looks like one of ours.

    Attributes:
        where: The object that it is in, as a caller would write it; empty for the outermost.
        key: As it was written.
        cure: What to do about it.
    """

    where: str
    key: str
    cure: str


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

    _nested: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Note the fields that hold others of this kind, alone or in a list."""
        kinds = {name: model_of(field.annotation) for name, field in cls.model_fields.items()}
        cls._nested = tuple(name for name, kind in kinds.items() if kind and issubclass(kind, Extensible))

    def find_slip(self, given: dict[str, Any]) -> Slip | None:
        """The first key here or further in that looks like one of ours; None where there is none.

        Args:
            given: What this was read from.
        """
        if len(given) > len(self.__pydantic_fields_set__) and (slip := self.find_slip_among(given)):
            return slip
        for name in self._nested:
            value = getattr(self, name)
            if value is None:
                continue
            several = isinstance(value, list)
            parts = zip(value, given[name], strict=True) if several else ((value, given[name]),)
            for place, (part, source) in enumerate(parts):
                if not part._nested and len(source) == len(part.__pydantic_fields_set__):
                    continue  # most have nothing more to look at
                if slip := part.find_slip(source):
                    where = f"{name}[{place}]" if several else name
                    return Slip(f"{where}.{slip.where}" if slip.where else where, slip.key, slip.cure)
        return None

    @classmethod
    def find_slip_among(cls, keys: Iterable[str]) -> Slip | None:
        """As `find_slip`, among the keys of one object."""
        unknown = (key for key in keys if key not in cls.model_fields)
        for key in islice(unknown, _MOST_LOOKED_AT):
            if cure := cls.explain_slip(key):
                return Slip("", key, cure)
        return None

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


def model_of(annotation: Any) -> type[Incoming] | None:
    """The type of request in an annotation such as `list[X] | None`; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, Incoming):
        return annotation
    return next(filter(None, map(model_of, get_args(annotation))), None)


def describe_content(kind: type[Wire], media_type: str = "application/json") -> dict[str, Any]:
    """OpenAPI for a body of this kind."""
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}


def describe_errors(body: dict[str, Any], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI for errors of these statuses, whose body FastAPI knows as `body`: a `model`, or a `content`."""
    return {status: {"description": _ERRORS[status], **body} for status in statuses}
