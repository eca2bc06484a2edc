"""The parts of an Open Inference Protocol request that occur in several places: objects, parameters, switches."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dubio.serving.errors import InvalidRequest
from dubio.serving.v1.decode import refuse_unknown
from dubio.serving.v1.instances import name_value

_RESERVED = ("sequence_id", "sequence_start", "sequence_end", "headers")


def read_object(value: object, *, known: Collection[str], what: str) -> dict[str, Any]:
    """`value`, if it is an object without unknown keys; raises InvalidRequest if not."""
    if not isinstance(value, dict):
        raise InvalidRequest(f'Expected {what} to be an object like {{"name": ...}}, but got {name_value(value)}.')
    refuse_unknown(value, known=known, what="key", where=what)
    return value


def read_parameters(value: object, *, known: Collection[str], of: str) -> dict[str, Any]:
    """The parameters of a request or tensor, none if there are none; raises InvalidRequest for those not `known`."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"Expected `parameters` of {of} to be an object, but got {name_value(value)}.")
    for name in value:
        if name.startswith("triton_") or name in _RESERVED:
            raise InvalidRequest(f"parameter {quoted(name)} is reserved, and no model here uses it; leave it out.")
        if name.startswith("shared_memory"):
            raise InvalidRequest("shared memory is not supported; send the tensor in the body.")
    refuse_unknown(value, known=known, what="parameter", where=f"`parameters` of {of}")
    return value


def read_flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    """A parameter that is true or false; raises InvalidRequest if it is something else."""
    value = parameters.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidRequest(f"Expected `{name}` to be true or false, but got {name_value(value)}.")
    return value


def quoted(value: object) -> str:
    """A name as messages repeat it: in quotes, and cut if it is long."""
    return f"'{value[:100]}'" if isinstance(value, str) else name_value(value)
