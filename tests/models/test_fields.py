from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from models.fields import Finite, Name, Plain, Rate, Sha256


class Part(Plain):
    name: Name = "a"
    number: Finite = 0.0
    rate: Rate = 0.5
    digest: Sha256 = "0" * 64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": ""}, "at least 1 character"),
        ({"name": "a" * 257}, "at most 256 characters"),
        ({"name": 1}, "valid string"),
        ({"number": float("nan")}, "finite"),
        ({"number": "1"}, "valid number"),
        ({"number": True}, "valid number"),
        ({"rate": 0.0}, "greater than 0"),
        ({"rate": 1.1}, "less than or equal to 1"),
        ({"digest": "A" * 64}, "match pattern"),
        ({"other": 1}, "not permitted"),
    ],
)
def test_nothing_is_coerced_and_every_field_is_bounded(values: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Part.model_validate(values)


def test_a_part_cannot_be_changed():
    part = Part(name="b", number=-1.5, rate=1.0, digest="f" * 64)
    with pytest.raises(ValidationError, match="frozen"):
        part.name = "c"
