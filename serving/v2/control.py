"""Reads what administrators send to the repository: no body, `{}`, or a few parameters."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import orjson

from serving.errors import InvalidRequest, MalformedJSON


def parse_index(body: bytes) -> bool:
    """Whether only loaded models are asked for.

    Raises:
        MalformedJSON, InvalidRequest: the body is no such request.
    """
    document = _object(body, {"ready"})
    ready = document.get("ready", False)
    if not isinstance(ready, bool):
        raise InvalidRequest("Expected `ready` to be true or false; leave it out to see all models.")
    return ready


def parse_load(body: bytes) -> None:
    """See that nothing is asked for but to load what lies on disk.

    Raises:
        MalformedJSON, InvalidRequest: the body is no such request.
    """
    parameters = _parameters(body)
    for name in parameters:
        if name == "config" or name.startswith("file:"):
            raise InvalidRequest(
                f"Expected no parameter {name[:80]!r}: models are loaded from the service's own disk as they are; put "
                "the checkpoint there, and load the model without parameters."
            )
    _refuse_unknown(parameters, (), "`parameters`")


def parse_unload(body: bytes) -> None:
    """See that nothing is asked for but to unload. No model depends on another, so `unload_dependents` changes nothing.

    Raises:
        MalformedJSON, InvalidRequest: the body is no such request.
    """
    parameters = _parameters(body)
    _refuse_unknown(parameters, {"unload_dependents"}, "`parameters`")
    if not isinstance(parameters.get("unload_dependents", False), bool):
        raise InvalidRequest("Expected `parameters.unload_dependents` to be true or false; leave it out.")


def _parameters(body: bytes) -> dict[str, Any]:
    parameters = _object(body, {"parameters"}).get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest("Expected `parameters` to be an object; leave it out if there are none.")
    return parameters


def _object(body: bytes, known: Collection[str]) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedJSON(f"Expected a body of JSON or none, but {error}.") from error
    if not isinstance(document, dict):
        raise InvalidRequest(f"Expected a JSON object or no body, but got {type(document).__name__}.")
    _refuse_unknown(document, known, "the body")
    return document


def _refuse_unknown(document: dict[str, Any], known: Collection[str], where: str) -> None:
    unknown = [name for name in document if name not in known]
    if unknown:
        allowed = ", ".join(sorted(known)) or "nothing"
        raise InvalidRequest(f"Expected {where} to have {allowed}, but got {unknown[0][:80]!r}; leave it out.")
