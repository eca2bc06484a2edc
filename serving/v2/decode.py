"""From the bytes of an infer request of the Open Inference Protocol to what is asked of a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import Samples, Work
from serving.errors import InvalidRequest
from serving.v1.decode import loads, read_id, read_samples, refuse_unknown
from serving.v1.instances import name_value
from serving.v2 import schema as wire
from serving.v2.input_tensor import Target, read_inputs, read_raw
from serving.v2.requested import Requested, everything, read_outputs
from serving.wire.fields import read_flag, read_parameters

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
