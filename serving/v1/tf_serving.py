"""The predict call of TensorFlow Serving's REST API and of KServe's V1 protocol, its requests read as `/v1`'s are.

Knows neither HTTP nor torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, SkipValidation
from pydantic.config import JsonDict

from dubio.serving.errors import InvalidRequest
from dubio.serving.v1.decode import DecodedRequest, to_array
from dubio.serving.wire.effort import Effort
from dubio.serving.wire.envelope import limit_samples, name_value, read
from dubio.serving.wire.images import KEY
from dubio.serving.wire.schema import Explain, Extensible, SampleCount, Wire

if TYPE_CHECKING:  # which would bring torch along
    from dubio.models import InputSpec

# The one input of a model whose rows have no named columns.
_INPUT = "input"


class TFServingParameters(Extensible):
    """How to predict; not part of the format."""

    samples: SampleCount = None
    explain: Explain = None
    resize: bool | None = Field(default=None, description="As over `/v1/predict`.")


# The schema of a request says that it has one of the two.
_NULL: JsonDict = {"type": "null"}
_ROWS: JsonDict = {"required": ["instances"], "properties": {"instances": {"type": "array"}, "inputs": _NULL}}
_COLUMNS: JsonDict = {
    "required": ["inputs"],
    "properties": {"inputs": {"type": ["array", "object"]}, "instances": _NULL},
}


class TFServingRequest(Extensible):
    """Instances to predict, by row or by column."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_ROWS, _COLUMNS]})

    signature_name: SkipValidation[str | None] = Field(
        default=None, description="Accepted for compatibility; models have one signature."
    )
    instances: list[Any] | None = Field(
        default=None,
        min_length=1,
        description="Row by row, as over `/v1/predict`; one that has no columns may also stand in an object, as "
        "its `input`.",
    )
    inputs: list[Any] | dict[str, Any] | None = Field(
        default=None,
        description="Instead of `instances` column by column: for a table lists of values by name, for other models "
        "the list of instances, alone or as `input`.",
    )
    parameters: TFServingParameters | None = Field(default=None, description="How to predict.")


class TFServingResponse(Wire):
    """One prediction an instance, in the order of the request."""

    predictions: list[dict[str, Any]] = Field(description="Each as in the answer of `/v1/predict`.")


def decode_request(
    body: bytes, *, spec: InputSpec, committee: int, max_rows: int, effort: Effort | None = None
) -> DecodedRequest:
    """Read a predict request.

    Args:
        body: Decompressed.
        spec: What the model takes.
        committee: Members of the model.
        max_rows: How many instances are allowed.
        effort: What reading may take.

    Raises:
        MalformedJSON, InvalidRequest, TooManyRows, InvalidInput, DeadlineExceeded: As
            `dubio.serving.v1.decode.decode_request`.
    """
    request = read(body, TFServingRequest)
    parameters = request.parameters or TFServingParameters()
    samples = limit_samples(parameters.samples, committee=committee)
    instances = _instances(request, is_table=spec.columns is not None)
    resize = parameters.resize is not False
    inputs, images = to_array(instances, spec=spec, max_rows=max_rows, resize=resize, effort=effort)
    instance = None if spec.reader is None else instances.__getitem__
    return DecodedRequest(None, inputs, images, samples, parameters.explain or False, instance)


def describe_status(versions: Sequence[str]) -> dict[str, Any]:
    """What those who come from KServe's V1 protocol and from TensorFlow Serving look for in a model's description."""
    status = {"error_code": "OK", "error_message": ""}
    return {
        "ready": True,
        "model_version_status": [{"version": each, "state": "AVAILABLE", "status": status} for each in versions],
    }


def _instances(request: TFServingRequest, *, is_table: bool) -> list[Any]:
    """The instances of a request, row by row."""
    if (request.instances is None) == (request.inputs is None):
        what = "neither" if request.inputs is None else "both"
        raise InvalidRequest(
            f"Expected `instances` or `inputs` in the request, but it has {what}; send rows as `instances`, or columns "
            "as `inputs`."
        )
    if request.instances is not None:
        return request.instances if is_table else [_unnamed(instance) for instance in request.instances]
    if isinstance(request.inputs, dict):
        return _rows(request.inputs) if is_table else _only(request.inputs)
    if not request.inputs:
        raise InvalidRequest("Expected `inputs` to hold at least one instance, but it is empty; send one.")
    return request.inputs


def _unnamed(instance: Any) -> Any:
    """An instance without the name of the model's only input."""
    return instance[_INPUT] if isinstance(instance, dict) and instance.keys() == {_INPUT} else instance


def _only(inputs: dict[str, Any]) -> list[Any]:
    """The instances of a model without columns."""
    if inputs.keys() != {_INPUT}:
        raise InvalidRequest(
            f"Expected `inputs` to be the list of instances, or an object with that list as `{_INPUT}`, but got an "
            f'object with other keys; of image files it is {{"{_INPUT}": [{{"{KEY}": "..."}}]}}.'
        )
    return _values(inputs[_INPUT], _INPUT)


def _rows(inputs: dict[str, Any]) -> list[Any]:
    """The rows of a table; a value may stand in a list of its own, as in a tensor of shape [-1, 1]."""
    columns = {name: _values(values, name) for name, values in inputs.items()}
    if not columns:
        raise InvalidRequest("Expected `inputs` to hold the table's columns, but it is empty; send them.")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        (first, size), *others = lengths.items()
        name, other = next((name, other) for name, other in others if other != size)
        raise InvalidRequest(
            f"Expected the columns of `inputs` to be equally long, but {first[:100]!r} has {size} values and "
            f"{name[:100]!r} has {other}; send a value for each row, null where it is missing."
        )
    cells = [[_alone(value) for value in values] for values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]


def _alone(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _values(values: Any, name: str) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise InvalidRequest(
            f"Expected {name[:100]!r} of `inputs` to be a list of values, one a row, but got {name_value(values)}; "
            "send such a list."
        )
    return values
