"""From the bytes of an infer request of the Open Inference Protocol to what is asked of a model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from dubio.models import Samples, Work
from dubio.serving.errors import InvalidRequest, MalformedJSON
from dubio.serving.v1.decode import loads, read_id, read_samples, refuse_unknown
from dubio.serving.v1.instances import name_value
from dubio.serving.v2 import schema as wire
from dubio.serving.v2.input_tensor import Target, read_inputs, read_raw
from dubio.serving.v2.outputs import OUTPUTS, Output
from dubio.serving.wire.envelope import quoted, read_flag, read_object, read_parameters


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


_LONGEST_TIMEOUT = 2**63 - 1


@dataclass(frozen=True)
class Inference:
    """A request that passed every check.

    Attributes:
        id: to echo.
        inputs: finite, [B, *shape].
        samples: how many members to ask, None for all, `auto` for as many as it takes.
        timeout: seconds, None for as long as the service allows.
        outputs: to send, in this order.
        listed: whether the caller named the outputs; if not, those that the model cannot give are left out.
    """

    id: str | None
    inputs: NDArray[np.float32]
    samples: Samples
    timeout: float | None
    outputs: tuple[Requested, ...]
    listed: bool

    @property
    def work(self) -> Work:
        """The least that gives all the outputs."""
        return max(requested.output.work for requested in self.outputs)


def parse(body: bytes, *, header_length: str | None, target: Target) -> Inference:
    """Read a request: JSON, then the raw tensors that it announces.

    Args:
        body: decompressed.
        header_length: the header Inference-Header-Content-Length, how many bytes are JSON; None if all are. With 0
            the body is one row and nothing else.
        target: the model.

    Raises:
        MalformedJSON, InvalidRequest, TooManyRows: it breaks a rule; the message names value, rule and cure.
    """
    view = memoryview(body)
    size = len(view) if header_length is None else _header_length(header_length, len(view))
    if header_length is not None and size == 0:
        rows = read_raw(view, target)
        return Inference(
            id=None, inputs=rows, samples=None, timeout=None, outputs=everything(binary=True), listed=False
        )
    document = loads(view[:size])
    if not isinstance(document, dict):
        raise InvalidRequest('Expected a JSON object like {"inputs": [...]}, but got another kind of JSON.')
    refuse_unknown(document, known=wire.InferRequest.model_fields, what="key", where="the request")
    known = wire.InferParameters.model_fields
    parameters = read_parameters(document.get("parameters"), known=known, of="the request")
    binary = read_flag(parameters, "binary_data_output", False)
    outputs = read_outputs(document.get("outputs"), binary=binary, target=target)
    return Inference(
        id=read_id(document.get("id")),
        inputs=read_inputs(document.get("inputs"), view[size:], target),
        samples=read_samples(parameters.get("samples"), committee=target.committee),
        timeout=_timeout(parameters.get("timeout")),
        outputs=outputs or everything(binary=binary),
        listed=bool(outputs),
    )


def _header_length(text: str, body: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= body):
        raise InvalidRequest(
            f"Expected the header Inference-Header-Content-Length to be the number of bytes of JSON, in [0, {body}] "
            f"for this body, but got {text[:40]!r}."
        )
    return int(text)


def _timeout(value: object) -> float | None:
    if value is None or (type(value) is int and value == 0):
        return None
    if type(value) is not int or not 0 < value <= _LONGEST_TIMEOUT:
        raise InvalidRequest(
            f"Expected `parameters.timeout` to be a whole number of microseconds, at least 1, but got "
            f"{name_value(value)}; leave it out to wait as long as the service allows."
        )
    return value / 1e6


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
