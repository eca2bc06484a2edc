from __future__ import annotations

import re

import numpy as np
import pytest

from dubio import models
from dubio.serving.errors import InvalidRequest, MalformedJSON, TooManyRows
from dubio.serving.v1.decode import Asked, parse


def read(body: bytes | str) -> Asked:
    return parse(body if isinstance(body, bytes) else body.encode(), shape=(2,), committee=16, max_rows=3)


def test_a_whole_request() -> None:
    asked = read('{"id": "r-1", "instances": [[1, 2], [3, 4]], "parameters": {"samples": 8}}')
    assert (asked.id, asked.samples) == ("r-1", 8)
    np.testing.assert_array_equal(asked.inputs, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "extra", ["", ', "id": null, "parameters": null', ', "parameters": {}', ', "parameters": {"samples": null}']
)
def test_what_is_left_out_is_none(extra: str) -> None:
    asked = read('{"instances": [[1, 2]]' + extra + "}")
    assert asked.id is None
    assert asked.samples is None


def test_samples_may_be_as_many_as_it_takes() -> None:
    assert read('{"instances": [[1, 2]], "parameters": {"samples": "auto"}}').samples == models.AUTO


@pytest.mark.parametrize("number", ["NaN", "nan", "Infinity", "-Infinity", "inf"])
def test_json_has_no_nan(number: str) -> None:
    with pytest.raises(MalformedJSON, match="NaN or Infinity, which JSON does not have"):
        read('{"instances": [[1, ' + number + "]]}")


NO_JSON = {
    "empty": b"",
    "open": b"{",
    "no utf-8": b"\xff\xfe",
    "comma": b"[1,]",
    "deep and open": b"[" * 100_000,
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "1e400": b'{"instances": [[1e400, 1]]}',
    "unquoted": b"{instances: [[1, 2]]}",
}


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedJSON, match="Expected the body to be JSON, but it cannot be read"):
        read(body)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("[[1, 2]]", "Expected the body to be a JSON object"),
        ("{}", "Expected the key `instances`, but it is missing"),
        ('{"instance": [[1, 2]]}', "got `instance`; did you mean `instances`?"),
        ('{"instances": [[1, 2]], "zzz": 1}', "got `zzz`; known: id, instances, parameters."),
        ('{"instances": [[1, 2]], "id": 7}', "Expected `id` to be a string of at most 256 characters"),
        ('{"instances": [[1, 2]], "id": "' + "x" * 257 + '"}', "at most 256 characters"),
        ('{"instances": [[1, 2]], "parameters": []}', "Expected `parameters` to be an object"),
        ('{"instances": [[1, 2]], "parameters": {"sample": 4}}', "got `sample`; did you mean `samples`?"),
    ],
)
def test_requests_that_break_a_rule(body: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(complaint)):
        read(body)


@pytest.mark.parametrize(
    "samples", ["1", "17", "-3", "8.0", "true", '"8"', '"Auto"', "[8]", "1e9", "[" * 1000 + "]" * 1000]
)
def test_samples_is_an_integer_within_the_committee(samples: str) -> None:
    with pytest.raises(
        InvalidRequest, match=re.escape('`parameters.samples` to be an integer in [2, 16] or "auto", but got')
    ):
        read('{"instances": [[1, 2]], "parameters": {"samples": ' + samples + "}}")


def test_rows_are_bounded() -> None:
    with pytest.raises(TooManyRows):
        read('{"instances": [[1,2],[1,2],[1,2],[1,2]]}')
