"""The input of an infer request: the caller's rows, as a tensor of numbers, of texts or image files, or by column."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dubio.models import InputSpec
from dubio.models.inputs.tabular import NumericColumn, Table
from dubio.models.inputs.text import Tokens
from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.v2.columns import name_columns, read_columns
from dubio.serving.v2.elements import read_elements, read_strings
from dubio.serving.v2.schema import RequestInput
from dubio.serving.v2.tensor_data import BOOL, BYTES, NUMBERS, Binary, from_bytes, from_json, name_input, split_binary
from dubio.serving.wire.effort import Effort
from dubio.serving.wire.images import KEY, ImageCodec

INPUT = "input"
# What clients of KServe and MLServer call the only tensor of a request.
_ALIASES = {INPUT, "input-0", "input-1"}
# What a column may be sent as, and the shapes but for the rows of what has one element for each.
_CELLS = (BYTES, BOOL, *NUMBERS)
_ONE_A_ROW: list[tuple[int, ...]] = [(), (1,)]


@dataclass(frozen=True)
class ModelSignature:
    """The model that a request is for.

    Attributes:
        name: For messages.
        input: What it takes.
        classes: How many there are.
        committee: How many members can answer.
        max_rows: How many one request may carry.
    """

    name: str
    input: InputSpec
    classes: int
    committee: int
    max_rows: int


class Rows(NamedTuple):
    """The rows of a request.

    Attributes:
        inputs: Finite, [B, *shape].
        instance: One as it was sent, by its number, where that is no numbers or files.
    """

    inputs: NDArray[np.float32]
    instance: Callable[[int], Any] | None = None


def list_inputs(spec: InputSpec) -> list[dict[str, Any]]:
    """The tensors of a request as metadata: one a column of a table, one of texts, or else one of numbers.

    In all cases the tensor of the numbers that they become is taken, too.
    """
    if spec.columns is not None:
        kinds = {column.name: "FP64" if isinstance(column, NumericColumn) else BYTES for column in spec.columns}
        return [{"name": name, "datatype": kind, "shape": [-1, 1]} for name, kind in kinds.items()]
    if spec.tokenizer is not None:
        return [{"name": INPUT, "datatype": BYTES, "shape": [-1, 1]}]
    return [{"name": INPUT, "datatype": "FP32", "shape": [-1, *spec.shape]}]


def read_inputs(
    tensors: Sequence[RequestInput],
    binary: Binary,
    model: ModelSignature,
    *,
    resize: bool = True,
    effort: Effort | None = None,
) -> Rows:
    """The rows of a request.

    Args:
        tensors: The request's inputs, at least one.
        binary: The bytes of those whose values are not in JSON.
        model: Whom the request is for.
        resize: Whether image files of another size may be resized as the training images were.
        effort: What reading may take; by default no time is set.

    Raises:
        InvalidRequest, TooManyRows: See the message.
        DeadlineExceeded: The time is up.
        InvalidInput: The model's reader of texts, of a table's rows or of image files refuses one.
    """
    reader = model.input.reader
    if isinstance(reader, Table) and not _is_encoded(tensors, reader):
        names = name_columns(tensors, reader, model.name)
        for tensor in tensors:
            _check_datatype(tensor, model, "FP64", _CELLS)
            _check_shape(tensor, model, _ONE_A_ROW)
            _check_rows(tensor, tensors[0], model)
        return Rows(*read_columns(tensors, split_binary(tensors, binary, model.name), names, reader))
    [tensor, *others] = tensors
    if others or tensor.name not in _ALIASES:
        raise InvalidRequest(
            f"unexpected inference {name_input(others[0] if others else tensor)} for model {model.name!r}; its only "
            f"input is '{INPUT}'."
        )
    if tensor.datatype == BYTES and isinstance(reader, Tokens):
        _check_shape(tensor, model, _ONE_A_ROW)
        texts = read_elements(tensor, *split_binary(tensors, binary, model.name))
        spend = (effort or Effort()).spend
        return Rows(
            reader.fill(reader.split(texts, lambda row: f"row {row} of {name_input(tensor)}", spend)), texts.__getitem__
        )
    if tensor.datatype == BYTES and not (codec := ImageCodec(model.input, resize)).unsupported:
        _check_shape(tensor, model, _ONE_A_ROW)
        return Rows(_read_files(read_strings(tensor, *split_binary(tensors, binary, model.name)), tensor, codec))
    _check_datatype(tensor, model, BYTES if isinstance(reader, Tokens) else "FP32", NUMBERS)
    _check_shape(tensor, model, [model.input.shape])
    [raw] = split_binary(tensors, binary, model.name)
    if raw is None:
        return Rows(from_json(tensor.data, datatype=tensor.datatype, shape=tensor.shape, where=name_input(tensor)))
    return Rows(from_bytes(raw, datatype=tensor.datatype, shape=tensor.shape, where=name_input(tensor)))


def read_raw(body: memoryview, model: ModelSignature) -> NDArray[np.float32]:
    """One row whose FP32 numbers are the whole body.

    Raises:
        InvalidRequest: Another number of bytes, or values that are not finite.
    """
    shape = (1, *model.input.shape)
    expected = NUMBERS["FP32"].itemsize * math.prod(shape)
    if len(body) != expected:
        raise InvalidRequest(
            f"Expected a raw binary request to hold one FP32 input of shape {list(shape)} for model {model.name!r}, "
            f"{expected} bytes, but got {len(body)} bytes; send more rows with their shape in JSON."
        )
    return from_bytes(body, datatype="FP32", shape=shape, where=f"input '{INPUT}'")


def _is_encoded(tensors: Sequence[RequestInput], table: Table) -> bool:
    """Whether a request for a table holds the numbers of its rows in one tensor, rather than columns."""
    [first, *others] = tensors
    is_column = first.name in table.columns and len(first.shape) <= 2 and first.shape[1:] in ([], [1])
    return first.name in _ALIASES and not others and not is_column


def _read_files(strings: Sequence[bytes | str | None], tensor: RequestInput, codec: ImageCodec) -> NDArray[np.float32]:
    """The pixels of image files: their bytes, or in JSON their base64."""
    if None in strings:
        raise InvalidRequest(
            f"Expected row {strings.index(None)} of {name_input(tensor)} to be an image file, but it is null; leave "
            "it out."
        )
    instances = {row: {KEY: string} if isinstance(string, str) else string for row, string in enumerate(strings)}
    pictures = codec.decode_all(instances, lambda row: f"row {row} of {name_input(tensor)}")
    return np.stack([pictures[row].pixels_CHW for row in range(len(strings))]).astype(np.float32)


def _check_datatype(tensor: RequestInput, model: ModelSignature, expected: str, taken: Collection[str]) -> None:
    if tensor.datatype not in taken:
        others = ", ".join(name for name in taken if name != expected)
        raise InvalidRequest(
            f"inference {name_input(tensor)} data-type is {tensor.datatype[:100]!r}, but model {model.name!r} expects "
            f"'{expected}'; also taken, and converted: {others}."
        )


def _check_shape(tensor: RequestInput, model: ModelSignature, accepted: list[tuple[int, ...]]) -> None:
    shape = tensor.shape
    if tuple(shape[1:]) not in accepted or not shape or shape[0] < 1:
        forms = " or ".join(str([-1, *each]) for each in accepted)
        raise InvalidRequest(
            f"unexpected shape for {name_input(tensor)} for model {model.name!r}. Expected {forms}, got {shape}; the "
            "first axis counts the rows, at least 1."
        )
    if shape[0] > model.max_rows:
        raise TooManyRows(
            f"inference request batch-size must be <= {model.max_rows} for {model.name!r}, but got {shape[0]}; "
            "split the rows over several requests."
        )


def _check_rows(tensor: RequestInput, first: RequestInput, model: ModelSignature) -> None:
    if tensor.shape[0] != first.shape[0]:
        raise InvalidRequest(
            f"{name_input(tensor)} batch size {tensor.shape[0]} does not match other inputs for model {model.name!r}: "
            f"{name_input(first)} has {first.shape[0]} rows; send a value for each row, null where it is missing."
        )
