"""Tensors of one element a row: texts, image files and the columns of tables, as values that JSON could hold."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import numpy as np
import orjson

from dubio.serving.errors import InvalidRequest
from dubio.serving.v2.schema import RequestInput
from dubio.serving.v2.tensor_data import BOOL, BYTES, NUMBERS, name_input, out_of_bounds, refuse_half
from dubio.serving.wire.envelope import name_value

# What MLServer's codecs call the ways in which they write elements of BYTES; the others write them as they are.
_BASE64, _JSON = "base64", "pd_json"


def read_elements(tensor: RequestInput, raw: memoryview | None) -> list[Any]:
    """The elements of a tensor of shape [N] or [N, 1] with a checked datatype; None for one that is missing.

    Texts are strings, as they are in JSON. NaN among numbers in binary is a value that is missing, as null is in JSON.

    Args:
        tensor: From the request.
        raw: Its bytes; None if its data are in the JSON.

    Raises:
        InvalidRequest: Another number of elements, or elements of another datatype.
    """
    if tensor.datatype == BYTES:
        return [_text(tensor, element, row) for row, element in enumerate(read_strings(tensor, raw))]
    if raw is None:
        return _numbers(tensor)
    if tensor.datatype == BOOL:
        truths = np.frombuffer(raw, np.uint8)
        if truths.max() > 1:
            raise InvalidRequest(
                f"Expected the bytes of {name_input(tensor)} to be 0 or 1, as its datatype BOOL says, but one is "
                f"{truths.max()}; send such, or name another datatype."
            )
        return list(map(bool, truths))
    numbers: list[Any] = np.frombuffer(raw, NUMBERS[tensor.datatype]).tolist()
    return [None if number != number else number for number in numbers]


def read_strings(tensor: RequestInput, raw: memoryview | None) -> list[bytes | str | None]:
    """The elements of a tensor of BYTES as they were sent: bytes in binary, else strings, null for none.

    Args:
        tensor: From the request.
        raw: Its bytes; None if its data are in the JSON.

    Raises:
        InvalidRequest: Another number of elements, or no strings.
    """
    if raw is None:
        elements = _listed(tensor)
        _check_types(tensor, elements, {str}, "a string")
        return elements
    strings: list[bytes | str | None] = []
    begin = 0
    while begin < len(raw) and len(strings) < tensor.shape[0]:
        end = begin + 4 + int.from_bytes(raw[begin : begin + 4], "little")
        if end > len(raw):
            break
        strings.append(bytes(raw[begin + 4 : end]))
        begin = end
    if begin != len(raw) or len(strings) != tensor.shape[0]:
        raise InvalidRequest(
            f"Expected the bytes of {name_input(tensor)} to be {tensor.shape[0]} elements, as its shape says, each its "
            f"length in 4 bytes and then as many bytes, but {len(strings)} such end at byte {begin} of {len(raw)}; "
            "write them so."
        )
    return strings


def _text(tensor: RequestInput, element: bytes | str | None, row: int) -> Any:
    """What an element stands for: a text, unless its content type says that it was written in another way."""
    written = tensor.parameters.content_type if tensor.parameters else None
    form = "base64"
    try:
        if written == _BASE64 and isinstance(element, str):
            element = b64decode(element, validate=True)
        form = "a text in UTF-8"
        text = element.decode() if isinstance(element, bytes) else element
        form = "JSON"
        return orjson.loads(text) if written == _JSON and text is not None else text
    except ValueError as error:
        raise InvalidRequest(
            f"Expected row {row} of {name_input(tensor)} to be {form}, but it cannot be read: {error}."
        ) from error


def _numbers(tensor: RequestInput) -> list[Any]:
    """Numbers, or truth values, from JSON."""
    elements, where = _listed(tensor), f"`data` of {name_input(tensor)}"
    if tensor.datatype == BOOL:
        _check_types(tensor, elements, {bool}, "true or false")
        return elements
    refuse_half(tensor.datatype, where)
    _check_types(tensor, elements, {int, float}, "a number")
    if NUMBERS[tensor.datatype].kind in "iu":
        bounds = np.iinfo(NUMBERS[tensor.datatype])
        if any(type(each) is float or not bounds.min <= each <= bounds.max for each in elements if each is not None):
            raise out_of_bounds(tensor.datatype, where)
    return elements


def _check_types(tensor: RequestInput, elements: list[Any], kinds: set[type], words: str) -> None:
    if set(map(type, elements)) <= kinds | {type(None)}:
        return
    row = next(row for row, each in enumerate(elements) if each is not None and type(each) not in kinds)
    raise InvalidRequest(
        f"Expected row {row} of {name_input(tensor)} to be {words}, as its datatype {tensor.datatype} says, but got "
        f"{name_value(elements[row])}."
    )


def _listed(tensor: RequestInput) -> list[Any]:
    """The data in JSON: flat, or each element in a list of its own."""
    data = tensor.data or []
    elements = [each[0] for each in data if type(each) is list and len(each) == 1]
    if not elements:
        elements = data
    if len(elements) != len(data) or len(data) != tensor.shape[0] or list in set(map(type, elements)):
        raise InvalidRequest(
            f"Expected `data` of {name_input(tensor)} to be {tensor.shape[0]} elements, as its shape {tensor.shape} "
            f"says, flat or each in a list of its own, but got {name_value(data)} that are not."
        )
    return elements
