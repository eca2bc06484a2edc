"""From a request's bytes to what is asked of a model. Knows neither HTTP nor torch."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from dubio.models.errors import did_you_mean
from dubio.serving.errors import InvalidRequest, MalformedJSON
from dubio.serving.v1.images import Raster
from dubio.serving.v1.instances import name_value, to_array
from dubio.serving.v1.schema import Parameters, PredictRequest

if TYPE_CHECKING:
    from dubio.models.inputs.reader import Reader

# As in `models`, which would bring torch along.
AUTO: Final = "auto"
Samples = int | Literal["auto"] | None

_LONGEST_ID = 256

# Where the parser stops at one: on its first letter, or after its sign.
_NOT_A_NUMBER = re.compile(r".?[-+]?(nan|inf|infinity)\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Asked:
    """A request that passed every check: `inputs` [B, *shape] is finite."""

    id: str | None
    inputs: NDArray[np.float32]
    samples: Samples


def parse(
    body: bytes,
    *,
    shape: tuple[int, ...],
    committee: int,
    max_rows: int,
    raster: Raster | None = None,
    reader: Reader | None = None,
) -> Asked:
    """Read a predict request for a model with this input `shape` and number of `committee` members.

    Args:
        body: decompressed.
        shape: of one input.
        committee: members of the model.
        max_rows: that are allowed.
        raster: how the model reads image files; None if it does not.
        reader: of the model's rows by column or texts; None if it takes numbers.

    Raises:
        MalformedJSON: the body is no JSON.
        InvalidRequest, TooManyRows: it is JSON but breaks a rule; the message names value, rule and cure.
        InvalidInput: the reader refuses an instance.
    """
    document = loads(body)
    if not isinstance(document, dict):
        raise InvalidRequest(
            'Expected the body to be a JSON object like {"instances": [[...]]}, but it is not an object.'
        )
    refuse_unknown(document, known=PredictRequest.model_fields, what="key", where="the request")
    if "instances" not in document:
        raise InvalidRequest('Expected the key `instances`, but it is missing; send {"instances": [[...]]}.')
    return Asked(
        id=read_id(document.get("id")),
        inputs=to_array(document["instances"], shape=shape, max_rows=max_rows, raster=raster, reader=reader),
        samples=_samples(document.get("parameters"), committee=committee),
    )


def loads(body: bytes | memoryview) -> Any:
    """What the JSON says.

    Raises:
        MalformedJSON: it is none.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedJSON(f"Expected the body to be JSON, but {_complaint(error)}.") from error


def _complaint(error: orjson.JSONDecodeError) -> str:
    if _NOT_A_NUMBER.match(error.doc, max(0, error.pos - 1)):
        return (
            f"character {error.pos} begins NaN or Infinity, which JSON does not have; "
            "leave such instances out, or fill in the missing values"
        )
    return f"it cannot be read: {error}"


def refuse_unknown(given: dict[str, Any], *, known: Collection[str], what: str, where: str) -> None:
    """Raise InvalidRequest for the first key that is not known, with what was probably meant."""
    for key in given:
        if key not in known:
            cure = did_you_mean(key, known, f"known: {', '.join(known)}.")
            raise InvalidRequest(f"Expected no unknown {what} in {where}, but got `{key[:100]}`; {cure}")


def read_id(value: object) -> str | None:
    """The caller's name for a request, if it may be echoed; raises InvalidRequest if not."""
    if value is None or (isinstance(value, str) and len(value) <= _LONGEST_ID):
        return value
    raise InvalidRequest(f"Expected `id` to be a string of at most {_LONGEST_ID} characters; shorten or quote it.")


def _samples(parameters: object, *, committee: int) -> Samples:
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise InvalidRequest('Expected `parameters` to be an object like {"samples": 16}, but it is not an object.')
    refuse_unknown(parameters, known=Parameters.model_fields, what="parameter", where="`parameters`")
    return read_samples(parameters.get("samples"), committee=committee)


def read_samples(value: object, *, committee: int) -> Samples:
    """How many members to ask, None for all; raises InvalidRequest for anything else."""
    if value == AUTO:
        return AUTO
    if value is None or (type(value) is int and 2 <= value <= committee):
        return value
    raise InvalidRequest(
        f'Expected `parameters.samples` to be an integer in [2, {committee}] or "{AUTO}", but got '
        f"{name_value(value)}; leave it out to ask the whole committee."
    )
