"""What travels over `/v1/reviews`: stored answers, what a reviewer says of them, and which are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from dubio.models.errors import did_you_mean
from dubio.serving.errors import InvalidRequest
from dubio.serving.v1.schema import Deterministic, ModelName, MonteCarlo, Uncertainty
from dubio.serving.wire.schema import Incoming, Wire

REASONS = (
    "unfamiliar",
    "uncertain",
    "out_of_range",
    "not_calibrated",
    "not_calibrated_for_these_samples",
    "calibration_too_small",
)
STATES = ("open", "labelled", "not_for_us")
KEPT = ("flagged", "sampled", "asked")
FORMATS = ("npz", "csv", "jsonl")
MOST_ROWS = 200
_FEWEST, _USUAL = 1, 50
_ID = re.compile(r"[0-9a-f]{32}\Z")
_LONGEST_NAME = 256

Label = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


class StoredInput(Wire):
    """The input of a stored answer."""

    kind: Literal["image", "numbers", "table", "text"]
    form: Literal["array", "json", "thumbnail", "hash"] = Field(
        description="What is stored of it: all (`array`, `json`), a small picture, or nothing but `sha256`."
    )
    sha256: str = Field(description="Of the numbers that the model took, as little-endian float32.")
    instance: Any = Field(
        description="As a predict request takes it; None where it is not stored in full or not asked."
    )
    picture: str | None = Field(description="A PNG as a data URL, of an image; None for others, or if it is not asked.")


class StoredFlag(Wire):
    """Whether the instance was flagged, as in the answer."""

    flagged: bool | None
    p_value: float | None
    level: float | None
    reason: str | None


class Review(Wire):
    """A stored answer, and what was said about it later."""

    id: str
    time: datetime
    request_id: str
    row: int = Field(description="Of the request, counted from 0.")
    model: ModelName
    kept: Literal["flagged", "sampled", "asked"] = Field(description="Why it is stored.")
    input: StoredInput
    deterministic: Deterministic
    mc: MonteCarlo | None
    uncertainty: Uncertainty | None
    ood: StoredFlag
    label_set: list[str] | None
    accepted: bool | None
    state: Literal["open", "labelled", "not_for_us"]
    label: str | None = Field(description="What a reviewer said.")
    reviewed: datetime | None
    true_label: str | None = Field(description="What feedback said.")


class ReviewPage(Wire):
    """Stored answers, the newest first."""

    reviews: list[Review]
    after: str | None = Field(description="For the next page; None on the last one.")


class ReviewChange(Incoming):
    """What a reviewer says: a `label`, or a `state`."""

    label: Label | None = Field(default=None, description="The true class; the row is then labelled.")
    new_label: bool = Field(default=False, description="Whether `label` may be a class that the model does not know.")
    state: Literal["open", "labelled", "not_for_us"] | None = Field(
        default=None, description="`not_for_us` for an input that has no label here, `open` to take back what was said."
    )

    def decide(self) -> str:
        """The state that is meant.

        Raises:
            InvalidRequest: Neither or both of a label and a state without one.
        """
        state = self.state or ("labelled" if self.label is not None else None)
        if state is None:
            raise InvalidRequest('Expected `label` or `state`, but got neither; send {"label": "..."}.')
        if (state == "labelled") != (self.label is not None):
            raise InvalidRequest(
                f"Expected a `label` with the state labelled and with no other, but got the state {state} "
                f"{'without one' if self.label is None else 'with one'}; send one of them."
            )
        return state


@dataclass(frozen=True)
class Parameter:
    """One parameter of a query.

    Attributes:
        meaning: For the description.
        schema: In OpenAPI's words.
        read: Its value, from its text.
        rule: For messages.
        cure: For messages.
    """

    meaning: str
    schema: Mapping[str, Any]
    read: Callable[[str], Any]
    rule: str
    cure: str = "mend it or leave it out"


def _one_of(values: Sequence[str], meaning: str) -> Parameter:
    known = frozenset(values)

    def read(text: str) -> str:
        if text not in known:
            raise ValueError
        return text

    return Parameter(meaning, {"type": "string", "enum": list(values)}, read, f"one of {', '.join(values)}")


def _name(meaning: str, longest: int = _LONGEST_NAME) -> Parameter:
    def read(text: str) -> str:
        if not 1 <= len(text) <= longest or not text.isprintable():
            raise ValueError
        return text

    schema = {"type": "string", "minLength": 1, "maxLength": longest}
    return Parameter(meaning, schema, read, f"1 to {longest} characters that can be printed")


def _time(meaning: str) -> Parameter:
    def read(text: str) -> int:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        milliseconds = round(moment.timestamp() * 1000)
        if not 0 <= milliseconds < 2**47:
            raise ValueError
        return milliseconds

    rule = "a time with its zone since 1970, such as 2026-01-31T12:00:00Z (a + is written %2B)"
    return Parameter(meaning, {"type": "string", "format": "date-time"}, read, rule)


def _read_limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4) or not _FEWEST <= int(text) <= MOST_ROWS:
        raise ValueError
    return int(text)


def _read_id(text: str) -> str:
    if not _ID.match(text):
        raise ValueError
    return text


FILTERS: Mapping[str, Parameter] = {
    "model": _name("Name of the model."),
    "version": _name("Of the model."),
    "reason": _one_of(REASONS, "Of the flag."),
    "state": _one_of(STATES, "Of the review."),
    "kept": _one_of(KEPT, "Why the row is stored."),
    "request_id": _name("`X-Request-Id` of the request."),
    "since": _time("Not older."),
    "until": _time("Older."),
}
PAGING: Mapping[str, Parameter] = {
    "limit": Parameter(
        f"How many rows, {_USUAL} if nothing is said.",
        {"type": "integer", "minimum": _FEWEST, "maximum": MOST_ROWS, "default": _USUAL},
        _read_limit,
        f"an integer in [{_FEWEST}, {MOST_ROWS}]",
    ),
    "after": Parameter(
        "As the page before says it.",
        {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        _read_id,
        "what the page before gave as `after`",
    ),
    "inputs": _one_of(
        ("true", "preview", "false"),
        "Whether with the inputs; `preview`: without arrays, and with small pictures; false if nothing is said.",
    ),
}
IDENTIFIER = Parameter(
    "Of a stored answer.",
    {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    _read_id,
    "32 digits 0-9 a-f",
    "take it from `GET /v1/reviews`",
)
EXPORT: Mapping[str, Parameter] = {"format": _one_of(FORMATS, "Of the file.")}


def read_query(pairs: Sequence[tuple[str, str]], parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """The values of a query, by name; those that are not given are left out.

    Args:
        pairs: Of the query.
        parameters: That it may have.

    Raises:
        InvalidRequest: One is unknown, comes twice, or breaks its rule.
    """
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name not in parameters:
            cure = did_you_mean(name, parameters, f"known: {', '.join(parameters)}.")
            raise InvalidRequest(f"Expected no unknown parameter in the query, but got `{name[:100]}`; {cure}")
        if name in values:
            raise InvalidRequest(f"Expected `{name}` once in the query, but got it twice; leave one out.")
        try:
            values[name] = parameters[name].read(text)
        except (ValueError, OverflowError) as error:
            raise InvalidRequest(
                f"Expected `{name}` to be {parameters[name].rule}, but got {text[:60]!r}; {parameters[name].cure}."
            ) from error
    return values


def usual_limit(values: Mapping[str, Any]) -> int:
    """How many rows a page has."""
    return int(values.get("limit", _USUAL))


def describe_query(parameters: Mapping[str, Parameter], required: Sequence[str] = ()) -> list[dict[str, Any]]:
    """OpenAPI for a query."""
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": each.meaning,
            "schema": dict(each.schema),
        }
        for name, each in parameters.items()
    ]
