"""From the bytes of an infer request of the Open Inference Protocol to what is asked of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubio.models import Samples, Work
from dubio.serving.errors import InvalidRequest
from dubio.serving.v2.input_tensor import ModelSignature, read_inputs, read_raw
from dubio.serving.v2.outputs import EXPLANATION, OUTPUTS, Output
from dubio.serving.v2.schema import InferParameters, InferRequest, OutputParameters, RequestOutput
from dubio.serving.v2.tensor_data import Binary
from dubio.serving.wire.effort import Effort
from dubio.serving.wire.envelope import limit_samples, read

_NO_PARAMETERS, _NO_OUTPUT_PARAMETERS = InferParameters(), OutputParameters()


@dataclass(frozen=True)
class SelectedOutput:
    """An output to send.

    Attributes:
        output: Which.
        binary: Whether it goes in binary rather than as JSON.
        classification: How many of its largest classes go as text instead of its numbers; None for the numbers.
    """

    output: Output
    binary: bool
    classification: int | None = None


@dataclass(frozen=True)
class DecodedRequest:
    """A request that passed every check.

    Attributes:
        inputs: Finite, [B, *shape].
        outputs: To send, in this order.
        listed: Whether the caller named the outputs; if not, those that the model cannot give are left out.
        id: To echo.
        samples: How many members to ask, None for all, `auto` for as many as it takes.
        timeout: Seconds, None for as long as the service allows.
        instance: One as it was sent, by its number, where that is no numbers or files.
    """

    inputs: NDArray[np.float32]
    outputs: tuple[SelectedOutput, ...]
    listed: bool = False
    id: str | None = None
    samples: Samples = None
    timeout: float | None = None
    instance: Callable[[int], Any] | None = None

    @property
    def work(self) -> Work:
        """The least that gives all the outputs."""
        return max(selected.output.work for selected in self.outputs)

    @property
    def explain(self) -> bool:
        """Whether one of the outputs is an explanation."""
        return any(selected.output is EXPLANATION for selected in self.outputs)


def decode_request(
    body: bytes, *, header_length: str | None, model: ModelSignature, effort: Effort | None = None
) -> DecodedRequest:
    """Read a request: JSON, then the raw tensors that it announces.

    Args:
        body: Decompressed.
        header_length: The header Inference-Header-Content-Length, how many bytes are JSON; None if all are. With 0 the
            body is one row and nothing else.
        model: Whom the request is for.
        effort: What reading may take; by default no time is set.

    Raises:
        MalformedJSON, InvalidRequest, TooManyRows: It breaks a rule; the message names field, rule, value and cure.
    """
    view = memoryview(body)
    size = len(view) if header_length is None else _header_length(header_length, len(view))
    if header_length is not None and size == 0:
        return DecodedRequest(read_raw(view, model), default_outputs(binary=True))
    return decode(read(view[:size], InferRequest), view[size:], model, effort=effort)


def decode(
    request: InferRequest, binary_data: Binary, model: ModelSignature, *, effort: Effort | None = None
) -> DecodedRequest:
    """Read a request whose envelope was read.

    Args:
        request: What it says.
        binary_data: The bytes of the tensors whose values it does not hold itself.
        model: Whom the request is for.
        effort: What reading may take; by default no time is set.

    Raises:
        InvalidRequest, TooManyRows: It breaks a rule; the message names field, rule, value and cure.
    """
    parameters = request.parameters or _NO_PARAMETERS
    binary = parameters.binary_data_output or False
    outputs = select_outputs(request.outputs or (), binary=binary, model=model)
    named = any(selected.output is EXPLANATION for selected in outputs)
    if named and parameters.explain is False:
        raise InvalidRequest(
            f"Expected no output '{EXPLANATION.name}' where `parameters.explain` is false, but it is named; leave one "
            "of them out."
        )
    more = (SelectedOutput(EXPLANATION, binary),) if parameters.explain and not named else ()
    rows = read_inputs(request.inputs, binary_data, model, resize=parameters.resize is not False, effort=effort)
    return DecodedRequest(
        id=request.id,
        inputs=rows.inputs,
        samples=limit_samples(parameters.samples, committee=model.committee),
        timeout=parameters.timeout / 1e6 if parameters.timeout else None,  # clients send 0 for none
        outputs=(outputs or default_outputs(binary=binary)) + more,
        listed=bool(outputs),
        instance=rows.instance,
    )


def default_outputs(*, binary: bool) -> tuple[SelectedOutput, ...]:
    """The outputs for those who name none: all."""
    return tuple(SelectedOutput(output, binary) for output in OUTPUTS.values())


def select_outputs(
    entries: Sequence[RequestOutput], *, binary: bool, model: ModelSignature
) -> tuple[SelectedOutput, ...]:
    """The outputs that a request names, in its order.

    Args:
        entries: The request's `outputs`.
        binary: The form of those that do not choose one.
        model: Whom the request is for.

    Raises:
        InvalidRequest: Unknown, named twice, or with classes where there are none.
    """
    selected: dict[str, SelectedOutput] = {}
    for entry in entries:
        output = EXPLANATION if entry.name == EXPLANATION.name else OUTPUTS.get(entry.name)
        if output is None:
            raise InvalidRequest(
                f"unexpected inference output {entry.name[:100]!r} for model {model.name!r}; "
                f"its outputs: {', '.join(OUTPUTS)}."
            )
        if output.name in selected:
            raise InvalidRequest(f"output '{output.name}' already requested; name each output once.")
        parameters = entry.parameters or _NO_OUTPUT_PARAMETERS
        if parameters.classification and not output.numbers:
            held = "yes or no for each" if output.per_class else "one a row"
            raise InvalidRequest(
                f"Expected `classification` with an output that has a number for each class, but got it with "
                f"'{output.name}', which has {held}; leave it out."
            )
        selected[output.name] = SelectedOutput(
            output,
            binary if parameters.binary_data is None else parameters.binary_data,
            min(parameters.classification, model.classes) if parameters.classification else None,  # 0 for none
        )
    return tuple(selected.values())


def _header_length(text: str, body: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= body):
        raise InvalidRequest(
            f"Expected the header Inference-Header-Content-Length to be the number of bytes of JSON, in [0, {body}] "
            f"for this body, but got {text[:40]!r}; count them again, or leave it out if all is JSON."
        )
    return int(text)
