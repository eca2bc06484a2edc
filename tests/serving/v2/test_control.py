from __future__ import annotations

import pytest

from serving.errors import InvalidRequest, MalformedJSON
from serving.v2.control import parse_index, parse_load, parse_unload


@pytest.mark.parametrize("body", [b"", b" \n", b"{}", b'{"parameters":{}}'])
def test_nothing_is_enough(body: bytes) -> None:
    parse_load(body)
    parse_unload(body)


def test_what_may_be_said() -> None:
    assert not parse_index(b"")
    assert not parse_index(b'{"ready":false}')
    assert parse_index(b'{"ready":true}')
    for value in (b"true", b"false"):
        parse_unload(b'{"parameters":{"unload_dependents":' + value + b"}}")


@pytest.mark.parametrize("name", ["config", "file:1/model.ckpt", "file:../../x"])
def test_models_do_not_come_with_the_request(name: str) -> None:
    with pytest.raises(InvalidRequest, match="own disk"):
        parse_load(b'{"parameters":{"%b":"x"}}' % name.encode())


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b'{"ready":1}', b'{"reddy":true}', b'{"parameters":1}', b'{"parameters":{"x":1}}', b"null"]
)
def test_what_may_not(body: bytes) -> None:
    for parse in (parse_index, parse_load, parse_unload):
        if b"ready" not in body or parse is parse_index:
            with pytest.raises(InvalidRequest, match="Expected"):
                parse(body)


def test_a_wrong_flag_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="unload_dependents"):
        parse_unload(b'{"parameters":{"unload_dependents":1}}')


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'{"a":NaN}'])
def test_what_is_no_json(body: bytes) -> None:
    for parse in (parse_index, parse_load, parse_unload):
        with pytest.raises(MalformedJSON):
            parse(body)
