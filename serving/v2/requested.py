"""Which outputs an infer request asks for, and in which form."""

from __future__ import annotations

from dataclasses import dataclass

from serving.errors import InvalidRequest
from serving.v1.instances import name_value
from serving.v2 import schema as wire
from serving.v2.input_tensor import Target
from serving.v2.outputs import OUTPUTS, Output
from serving.wire.fields import quoted, read_flag, read_object, read_parameters


@dataclass(frozen=True)
class Requested:
    """An output to send: in binary or as JSON, and if `classification` is set, as its so many largest classes."""

    output: Output
    binary: bool
    classification: int | None = None


def read_outputs(entries: object, *, binary: bool, target: Target) -> tuple[Requested, ...]:
    """The outputs that a request names, in its order; empty if it leaves the choice to the service.

    Args:
        entries: the request's `outputs`.
        binary: the form of those that do not choose one.
        target: the model.

    Raises:
        InvalidRequest: unknown, named twice, or wrongly parametrised.
    """
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise InvalidRequest(f"Expected `outputs` to be a list, but got {name_value(entries)}; leave it out for all.")
    found: dict[str, Requested] = {}
    for entry in entries:
        asked = read_object(entry, known=wire.RequestOutput.model_fields, what="an output")
        name = asked.get("name")
        output = OUTPUTS.get(name) if isinstance(name, str) else None
        if output is None:
            raise InvalidRequest(
                f"unexpected inference output {quoted(name)} for model {target.name!r}; "
                f"its outputs: {', '.join(OUTPUTS)}."
            )
        if output.name in found:
            raise InvalidRequest(f"output '{output.name}' already requested; name each output once.")
        known = wire.OutputParameters.model_fields
        parameters = read_parameters(asked.get("parameters"), known=known, of=f"output '{output.name}'")
        found[output.name] = Requested(
            output,
            read_flag(parameters, "binary_data", binary),
            _classification(parameters.get("classification"), output, target),
        )
    return tuple(found.values())


def _classification(value: object, output: Output, target: Target) -> int | None:
    if value is None or (type(value) is int and value == 0):  # clients send 0 for none
        return None
    if not output.per_class:
        raise InvalidRequest(
            f"Expected `classification` with an output that has a number for each class, but '{output.name}' has one "
            "a row; leave it out."
        )
    if type(value) is not int or value < 1:
        raise InvalidRequest(
            f"Expected `classification` to be how many classes to name, at least 1, but got {name_value(value)}."
        )
    return min(value, target.classes)


def everything(*, binary: bool) -> tuple[Requested, ...]:
    """The outputs for those who name none."""
    return tuple(Requested(output, binary) for output in OUTPUTS.values() if output.by_default)
