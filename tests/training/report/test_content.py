from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from dubio.training.report.content import Measured, Rate, Report


def test_numbers_are_written_with_six_digits():
    assert Measured(value=1 / 3, low=0.0, high=12345.678).model_dump(mode="json") == {
        "value": 0.333333,
        "low": 0.0,
        "high": 12345.7,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_refused(value: float):
    with pytest.raises(ValidationError):
        Measured(value=value, low=0.0, high=1.0)


def test_shares_lie_between_0_and_1():
    with pytest.raises(ValidationError):
        Rate(count=2, rows=1, rate=2.0, low=0.0, high=1.0)


def test_the_schema_knows_every_part_and_no_other():
    schema = Report.model_json_schema()
    assert set(schema["required"]) == set(Report.model_fields)
    assert all(part.get("additionalProperties") is False for part in schema["$defs"].values())
