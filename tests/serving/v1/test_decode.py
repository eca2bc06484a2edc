from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubio.models import AUTO, InputSpec
from dubio.serving.errors import InvalidRequest, MalformedJSON, TooManyRows
from dubio.serving.v1.decode import DecodedRequest, decode_request, takes_long, to_array


def spec(*shape: int) -> InputSpec:
    """Numbers, or images that are no files: their values go to 16."""
    kind = "image" if len(shape) == 3 else "numbers"
    return InputSpec(kind=kind, shape=shape, mean=(0.0,) * shape[0], std=(1.0,) * shape[0], low=0.0, high=16.0)


def read(body: bytes | str) -> DecodedRequest:
    encoded = body if isinstance(body, bytes) else body.encode()
    return decode_request(encoded, spec=spec(2), committee=16, max_rows=3)


def test_a_whole_request() -> None:
    decoded = read('{"id": "r-1", "instances": [[1, 2], [3, 4]], "parameters": {"samples": 8}}')
    assert (decoded.id, decoded.samples) == ("r-1", 8)
    np.testing.assert_array_equal(decoded.inputs, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "extra", ["", ', "id": null, "parameters": null', ', "parameters": {}', ', "parameters": {"samples": null}']
)
def test_what_is_left_out_is_none(extra: str) -> None:
    decoded = read('{"instances": [[1, 2]]' + extra + "}")
    assert decoded.id is None
    assert decoded.samples is None


@pytest.mark.parametrize(("given", "meant"), [("2", 2), ("16", 16), ('"auto"', AUTO)])
def test_samples_go_up_to_the_whole_committee_or_are_as_many_as_it_takes(given: str, meant: int | str) -> None:
    assert read('{"instances": [[1, 2]], "parameters": {"samples": ' + given + "}}").samples == meant


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


def test_where_a_body_is_no_text_is_told() -> None:
    with pytest.raises(MalformedJSON, match=r"byte 15 is none of a text in UTF-8; send it in UTF-8\.$"):
        read(b'{"instances":["\xff"]}')


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(
        MalformedJSON, match=r"Expected the body to be JSON, but it (cannot be read: .*;|is empty;) send "
    ):
        read(body)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("[[1, 2]]", "Expected the request to be an object with id, instances, parameters, but got a list of 1."),
        ("{}", "Expected `instances`, but it is missing; send it. Its meaning: A list with one entry an instance"),
        (
            '{"instances": "abc"}',
            "Expected `instances` to be a valid list, but got the string 'abc'; put what it holds into a list.",
        ),
        ('{"instances": null}', "Expected `instances` to be a valid list, but got null"),
        ('{"instances": {"a": 1}}', "Expected `instances` to be a valid list, but got an object"),
        ('{"instances": []}', "Expected `instances` to have at least 1 item, but got a list of 0"),
        ('{"instance": [[1, 2]]}', "Expected no unknown key in the request, but got `instance`; did you mean"),
        ('{"instances": [[1, 2]], "zzz": 1}', "got `zzz`; known: id, instances, parameters."),
        ('{"instances": [[1, 2]], "id": 7}', "Expected `id` to be a valid string, but got the number 7; mend it or "),
        ('{"instances": [[1, 2]], "id": "' + "x" * 257 + '"}', "Expected `id` to have at most 256 characters, but "),
        ('{"instances": [[1, 2]], "parameters": []}', "Expected `parameters` to be an object, but got a list of 0"),
        ('{"instances": [[1, 2]], "parameters": {"sample": 4}}', "in `parameters`, but got `sample`; did you mean"),
    ],
)
def test_requests_that_break_a_rule(body: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(complaint)) as caught:
        read(body)
    assert len(str(caught.value)) < 400


def test_an_id_has_at_most_256_characters_of_any_alphabet() -> None:
    assert read('{"instances": [[1, 2]], "id": "' + "é" * 256 + '"}').id == "é" * 256


@pytest.mark.parametrize(
    "samples", ["0", "1", "-3", "8.0", "true", '"8"', '"Auto"', "[8]", "1e9", "[" * 1000 + "]" * 1000]
)
def test_samples_is_an_integer_or_auto(samples: str) -> None:
    rule = r"Expected `parameters.samples` to be (a valid integer|greater than or equal to 2) or 'auto', but got .+"
    with pytest.raises(InvalidRequest, match=rule + r"; mend it or leave it out\. .* to the committee's size"):
        read('{"instances": [[1, 2]], "parameters": {"samples": ' + samples + "}}")


@pytest.mark.parametrize("samples", [17, 10**9])
def test_samples_are_no_more_than_the_committee(samples: int) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(f'integer in [2, 16] or "auto", but got {samples}; leave it')):
        read(json.dumps({"instances": [[1, 2]], "parameters": {"samples": samples}}))


SHAPE = (1, 2, 3)
GOOD = [[[1, 2.5, 3], [4, 5, 6]]]


@pytest.mark.parametrize("instance", [GOOD, GOOD[0], [1, 2.5, 3, 4, 5, 6]], ids=["exact", "no channel", "flat"])
def test_every_accepted_form_is_the_same_input(instance: list) -> None:
    array = to_array([instance, GOOD], spec=spec(*SHAPE), max_rows=2)[0]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array([GOOD, GOOD], dtype=np.float32))


@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4), min_size=1)
)
def test_numbers_arrive_exactly(rows: list[list[float]]) -> None:
    array = to_array(rows, spec=spec(4), max_rows=len(rows))[0]
    np.testing.assert_array_equal(array, np.array(rows, dtype=np.float32))


@pytest.mark.parametrize(
    ("instance", "complaint"),
    [
        (7, "instances[1] to have shape [1, 2, 3], [2, 3] or [6], but got the number 7"),
        ([1, 2], "instances[1] to have shape [1, 2, 3], [2, 3] or [6], but got shape [2]"),
        ([[1, 2, 3], [4, "5", 6]], "instances[1][1][1] to be a number, but got the string '5'"),
        ([1, 2, 3, 4, 5, -1e39], "row 1 holds -1e+39 at position 5"),
    ],
)
def test_the_instance_that_is_no_input_is_named(instance: object, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(complaint)):
        to_array([GOOD, instance], spec=spec(*SHAPE), max_rows=4)


def test_only_a_channel_axis_of_one_may_be_left_out() -> None:
    with pytest.raises(InvalidRequest, match=re.escape("to have shape [3, 4, 4] or [48], but got shape [4, 4]")):
        to_array([[[0.0] * 4] * 4], spec=spec(3, 4, 4), max_rows=1)


def test_rows_are_bounded() -> None:
    assert len(read('{"instances": [[1,2],[1,2],[1,2]]}').inputs) == 3
    with pytest.raises(TooManyRows, match="at most 3 instances, but got 4"):
        read('{"instances": [[1,2],[1,2],[1,2],[1,2]]}')


def test_bodies_with_files_are_known_from_afar() -> None:
    file = base64.b64encode(b"x").decode()
    assert takes_long(json.dumps({"instances": [{"b64": file}]}).encode(), spec(2))
    assert takes_long(json.dumps({"instances": [f"data:image/png;base64,{file}"]}).encode(), spec(2))
    assert takes_long(rb'{"instances": [{"\u006264": ""}]}', spec(2))
    assert not takes_long(b'{"instances": [[1, 2, 3]], "id": "r-1"}', spec(2))


@pytest.mark.parametrize("instance", [[[1, 2, 3], None], 1, None, "text", "data:text/plain;base64,"])
def test_what_is_no_file_is_read_as_numbers(instance: object) -> None:
    with pytest.raises(InvalidRequest, match=r"to be a number, but got|to be rectangular|to have shape"):
        to_array([instance], spec=spec(*SHAPE), max_rows=1)
