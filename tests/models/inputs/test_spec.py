from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from dubio.models.inputs.spec import MAX_INPUT, InputSpec

IMAGE: dict[str, Any] = {
    "kind": "image",
    "shape": (3, 8, 8),
    "mean": (0.1, 0.2, 0.3),
    "std": (1.0, 1.0, 2.0),
    "low": 0.0,
    "high": 255.0,
}


def test_it_survives_its_own_dump_is_frozen_and_knows_no_other_key():
    spec = InputSpec.model_validate(IMAGE)
    assert InputSpec.model_validate(spec.model_dump()) == spec
    with pytest.raises(ValidationError, match="frozen"):
        spec.low = 0.0
    with pytest.raises(ValidationError, match=r"(?s)extra.*not permitted"):
        InputSpec.model_validate({**IMAGE, "extra": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "sound"}, "'image', 'numbers', 'table' or 'text'"),
        ({"shape": (8, 8)}, "3 axes"),
        ({"shape": (3, 8, 0)}, "greater than or equal to 1"),
        ({"shape": (3, 8, 8.0)}, "valid integer"),
        ({"shape": (3, MAX_INPUT, 1)}, "at most"),
        ({"shape": (3, 2**40, 2**40)}, "at most"),
        ({"shape": "388"}, "valid tuple"),
        ({"mean": (0.1,)}, "one mean and one std for each of 3"),
        ({"std": (1.0, 1.0)}, "one mean and one std for each of 3"),
        ({"std": (1.0, 0.0, 1.0)}, "greater than 0"),
        ({"mean": (math.nan, 0.0, 0.0)}, "finite number"),
        ({"std": (math.inf, 1.0, 1.0)}, "finite number"),
        ({"low": -math.inf}, "finite number"),
        ({"low": 256.0}, "low <= high"),
        ({"high": "255"}, "valid number"),
        ({"kind": "numbers"}, "1 axes"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_the_rule(change: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        InputSpec.model_validate({**IMAGE, **change})


def test_a_card_shows_values_as_they_were_written_and_a_checkpoint_keeps_them():
    single = 44.45000076293945  # what float32 makes of 44.45
    column = {"kind": "numeric", "name": "fare", "low": -0.10000000149011612, "high": 512.0, "fill": single}
    columns = [{**column, "missing": False}]
    spec = InputSpec.model_validate(
        {**IMAGE, "kind": "table", "shape": (1,), "mean": (0.1,), "std": (1.0,), "high": single, "columns": columns}
    )
    described = spec.describe()
    assert (described["high"], described["columns"][0]["fill"], described["columns"][0]["low"]) == (44.45, 44.45, -0.1)
    assert (spec.model_dump()["high"], spec.model_dump()["columns"][0]["fill"]) == (single, single)
    assert spec.reader is not None
    assert spec.reader.example() == {"fare": 44.45}
