"""From a request's bytes to its type, or to an error that names field, rule, value and cure. Knows no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from dubio.serving.errors import InvalidRequest, MalformedJSON
from dubio.serving.wire.schema import Extensible, Incoming, Slip, model_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from dubio.models import Samples

Request = TypeVar("Request", bound=Incoming)

# Where the parser stops at one: on its first letter, or after its sign.
_NOT_A_NUMBER = re.compile(r".?[-+]?(nan|inf|infinity)\b", re.IGNORECASE | re.DOTALL)
# Listing the mistakes of a request with a million unknown keys would take seconds.
_MOST_ERRORS = 100
# Where pydantic says it in Python's words.
_RULES = {"model_type": "to be an object", "dict_type": "to be an object"}
_KINDS = {bool: "a boolean", type(None): "null", dict: "an object"}


def read(body: bytes | memoryview, kind: type[Request]) -> Request:
    """The request that a body holds; what its type leaves open, numbers above all, is not looked at.

    Args:
        body: Decompressed JSON.
        kind: The type of the request.

    Raises:
        MalformedJSON: The body is no JSON.
        InvalidRequest: It is JSON but not such a request.
    """
    return validate(loads(body), kind)


def validate(document: Any, kind: type[Request]) -> Request:
    """The request that plain data are.

    Args:
        document: As JSON would hold it.
        kind: The type of the request.

    Raises:
        InvalidRequest: It is not such a request.
    """
    try:
        request = kind.model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(_explain(error, kind)) from error
    if isinstance(request, Extensible) and (slip := request.find_slip(document)):
        raise InvalidRequest(_explain_slip(slip))
    return request


def loads(body: bytes | memoryview) -> Any:
    """What the JSON says.

    Raises:
        MalformedJSON: It is none.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        complaint = f"it cannot be read: {error}; send what a JSON library writes, in UTF-8"
        if not body:
            complaint = "it is empty; send an object"
        elif (place := _find_no_text(body)) is not None:
            complaint = f"it cannot be read: byte {place} is none of a text in UTF-8; send it in UTF-8"
        if _NOT_A_NUMBER.match(error.doc, max(0, error.pos - 1)):
            complaint = (
                f"character {error.pos} begins NaN or Infinity, which JSON does not have; "
                "leave such instances out, fill in the missing values, or send null for those of a table that has them"
            )
        raise MalformedJSON(f"Expected the body to be JSON, but {complaint}.") from error


def _find_no_text(body: bytes | memoryview) -> int | None:
    """Where it is not UTF-8, if anywhere; the parser does not say."""
    try:
        str(body, "utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return None


def limit_samples(samples: Samples, *, committee: int) -> Samples:
    """The members that a request asks for, None for all.

    Raises:
        InvalidRequest: There are not so many in the `committee`.
    """
    if isinstance(samples, int) and samples > committee:
        raise InvalidRequest(
            f'Expected `parameters.samples` to be an integer in [2, {committee}] or "auto", but got {samples}; '
            "leave it out to ask the whole committee."
        )
    return samples


def name_value(value: object) -> str:
    """A JSON value in a few words; lists and objects are not repeated, which could be long and deep."""
    if isinstance(value, str):
        return f"the string {value[:40]!r}" + (" (cut)" if len(value) > 40 else "")
    if type(value) in (int, float):
        return f"the number {value}"
    return f"a list of {len(value)}" if isinstance(value, list) else _KINDS.get(type(value), type(value).__name__)


def _explain(error: ValidationError, kind: type[Incoming]) -> str:
    """What pydantic found first, in the house's words."""
    known = ", ".join(kind.model_fields)
    if error.error_count() > _MOST_ERRORS:
        count = error.error_count()
        return f"Expected the request to have the keys {known}, but {count} things in it are wrong; leave others out."
    details = error.errors(include_url=False)
    # A key that is unknown may be the one that is missing, so it comes first.
    first = next((each for each in details if each["type"] == "extra_forbidden"), details[0])
    where, field, model = _locate(kind, first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return f"Expected no unknown key in {where}, but got `{key[:100]}`; {model.explain_unknown(key)}"
    if field is None:
        return f"Expected the request to be an object with {known}, but got {name_value(first['input'])}."
    meaning = f"Its meaning: {(field.description or '').split('. ')[0].removesuffix('.')}."
    if first["type"] == "missing":
        slip = model.find_slip_among(first["input"]) if issubclass(model, Extensible) else None
        if slip:
            return _explain_slip(slip._replace(where=where.strip("`").rpartition(".")[0]))
        return f"Expected {where}, but it is missing; send it. {meaning}"
    # Each branch of a union complains for itself.
    rules = dict.fromkeys(_rule(each) for each in details if _locate(kind, each["loc"])[0] == where)
    cure = "put what it holds into a list" if first["type"] == "list_type" else "mend it"
    cure += "" if field.is_required() else " or leave it out"
    rule = " or ".join(rules).replace(" or to be ", " or ")
    return f"Expected {where} {rule}, but got {name_value(first['input'])}; {cure}. {meaning}"


def _explain_slip(slip: Slip) -> str:
    where = f"`{slip.where}`" if slip.where else "the request"
    return f"Expected no unknown key in {where}, but got `{slip.key[:100]}`; {slip.cure}"


def _rule(detail: ErrorDetails) -> str:
    """Pydantic's "Input should be ..." as a part of a sentence."""
    if detail["type"] in _RULES:
        return _RULES[detail["type"]]
    return "to " + detail["msg"].partition(" should ")[2].partition(" after validation")[0]


def _locate(kind: type[Incoming], location: tuple[int | str, ...]) -> tuple[str, FieldInfo | None, type[Incoming]]:
    """A place in a request: as a caller would write it, the field there, and the type that this is a field of.

    What no field is called, an unknown key or pydantic's name for a branch of a union, ends the way.
    """
    path, field, model = "", None, kind
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
            continue
        if field is not None:
            model = model_of(field.annotation) or model
        if part not in model.model_fields:
            break
        field = model.model_fields[part]
        path += f".{part}" if path else part
    return f"`{path}`" if path else "the request", field, model
