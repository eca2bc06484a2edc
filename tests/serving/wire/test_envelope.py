from __future__ import annotations

import pytest

from dubio.serving.errors import InvalidRequest
from dubio.serving.wire.envelope import quoted, read_flag, read_object, read_parameters


def test_objects() -> None:
    assert read_object({"name": "x"}, known=["name"], what="an output") == {"name": "x"}
    with pytest.raises(InvalidRequest, match="did you mean `name`"):
        read_object({"nam": "x"}, known=["name"], what="an output")
    with pytest.raises(InvalidRequest, match="an output to be an object"):
        read_object(["name"], known=["name"], what="an output")


def test_parameters() -> None:
    assert read_parameters(None, known=["samples"], of="the request") == {}
    assert read_parameters({"samples": 3}, known=["samples"], of="the request") == {"samples": 3}
    for name in ("triton_enable", "sequence_id", "headers", "shared_memory_offset", "other"):
        with pytest.raises(InvalidRequest, match=r"reserved|shared memory|unknown parameter"):
            read_parameters({name: 1}, known=["samples"], of="the request")


def test_flags() -> None:
    assert read_flag({"a": True}, "a", False) is True
    assert read_flag({"a": None}, "a", True) is True
    assert read_flag({}, "a", False) is False
    for value in (1, "true", []):
        with pytest.raises(InvalidRequest, match="true or false"):
            read_flag({"a": value}, "a", False)


def test_names_in_messages_are_cut() -> None:
    assert quoted("a" * 500) == "'" + "a" * 100 + "'"
    assert quoted(None) == "null"
