from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from dubio.serving.errors import InvalidRequest
from dubio.serving.v2.elements import read_elements, read_strings
from dubio.serving.v2.schema import RequestInput
from dubio.serving.v2.tensor_data import NUMBERS, to_bytes


def tensor(datatype: str, data: list[Any] | None, rows: int | None = None, **parameters: Any) -> RequestInput:
    shape = [len(data or []) if rows is None else rows]
    entry = {"name": "age", "shape": shape, "datatype": datatype, "data": data, "parameters": parameters or None}
    return RequestInput.model_validate(entry)


def read(datatype: str, data: list[Any], **parameters: Any) -> list[Any]:
    return read_elements(tensor(datatype, data, **parameters), None)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_binary_and_json_are_the_same_values(datatype: str) -> None:
    values = [0, 1, 100]
    raw = memoryview(np.array(values, NUMBERS[datatype]).tobytes())
    elements = read_elements(tensor(datatype, None, rows=3), raw)
    assert elements == values
    assert {type(each) for each in elements} == ({float} if datatype.startswith("FP") else {int})
    if datatype != "FP16":
        assert read(datatype, values) == values
        assert read(datatype, [[value] for value in values]) == values
        assert read(datatype, [1, None]) == [1, None]


def test_nan_is_missing() -> None:
    for datatype, letter in (("FP32", "f"), ("FP64", "d"), ("FP16", "e")):
        raw = memoryview(struct.pack(f"<2{letter}", float("nan"), 1.5))
        assert read_elements(tensor(datatype, None, rows=2), raw) == [None, 1.5]


def test_truth_values() -> None:
    assert read("BOOL", [True, None, False]) == [True, None, False]
    assert read_elements(tensor("BOOL", None, rows=2), memoryview(b"\0\1")) == [False, True]
    with pytest.raises(InvalidRequest, match=r"bytes of input 'age' to be 0 or 1, .* but one is 2"):
        read_elements(tensor("BOOL", None, rows=2), memoryview(b"\0\2"))


def test_texts() -> None:
    texts = ["", "Köln", "a" * 300]
    assert read("BYTES", [*texts, None]) == [*texts, None]
    raw = memoryview(bytes(to_bytes(texts)))
    assert read_elements(tensor("BYTES", None, rows=3), raw) == texts
    assert read_strings(tensor("BYTES", None, rows=3), raw) == [text.encode() for text in texts]
    assert read("BYTES", ["S8O2bG4=", None], content_type="base64") == ["Köln", None]
    # As they come from a data frame whose column holds more than texts.
    assert read("BYTES", ['"Köln"', "3", "null", "true"], content_type="pd_json") == ["Köln", 3, None, True]
    assert read("BYTES", ["S8O2bG4="], content_type="str") == ["S8O2bG4="]


@pytest.mark.parametrize(
    ("datatype", "data", "complaint"),
    [
        ("BYTES", ["a", 3], "row 1 of input 'age' to be a string, as its datatype BYTES says, but got the number 3"),
        ("BOOL", [1], "row 0 of input 'age' to be true or false, as its datatype BOOL says, but got the number 1"),
        ("FP64", ["1"], "row 0 of input 'age' to be a number, as its datatype FP64 says, but got the string '1'"),
        ("FP32", [True], "to be a number, as its datatype FP32 says, but got a boolean"),
        ("INT8", [128], r"integers in \[-128, 127\], as its datatype INT8 says"),
        ("INT64", [1.0], "as its datatype INT64 says, but it holds other numbers"),
        ("FP16", [1.0], "of datatype FP16 in binary, but it is JSON"),
        ("FP64", [[1], 2], "`data` of input 'age' to be 2 elements"),
        ("FP64", [[1, 2], [3, 4]], "flat or each in a list of its own"),
        ("FP64", [[[1]], [[2]]], "flat or each in a list of its own"),
    ],
)
def test_other_json_is_refused(datatype: str, data: list[Any], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        read(datatype, data)


def test_another_number_of_elements_is_refused() -> None:
    for rows in (1, 3):
        with pytest.raises(InvalidRequest, match=f"to be {rows} elements, as its shape"):
            read_elements(tensor("FP64", [1, 2], rows=rows), None)


@pytest.mark.parametrize(
    "raw",
    [
        b"\1\0\0",
        b"\1\0\0\0",
        b"\2\0\0\0a",
        b"\1\0\0\0a\1",
        b"\1\0\0\0a\1\0\0\0b\0\0\0\0",
        b"\xff\xff\xff\xffa",
        b"\1\0\0\0a",
    ],
)
def test_bytes_that_are_not_two_elements_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"bytes of input 'age' to be 2 elements, .* such end at byte"):
        read_strings(tensor("BYTES", None, rows=2), memoryview(raw))


@pytest.mark.parametrize(
    ("text", "content_type", "complaint"),
    [
        (b"\xff", None, "row 0 of input 'age' to be a text in UTF-8"),
        ("no base64!", "base64", "row 0 of input 'age' to be base64"),
        ("ä", "base64", "to be base64"),
        ("/w==", "base64", "to be a text in UTF-8"),
        ("{", "pd_json", "row 0 of input 'age' to be JSON"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_row(text: bytes | str, content_type: str | None, complaint: str) -> None:
    raw = memoryview(len(text).to_bytes(4, "little") + text) if isinstance(text, bytes) else None
    given = tensor("BYTES", None if raw else [text], rows=1, content_type=content_type)
    with pytest.raises(InvalidRequest, match=complaint):
        read_elements(given, raw)
