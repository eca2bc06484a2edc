from __future__ import annotations

import pytest

from dubio.models import prediction
from dubio.serving.errors import InvalidRequest
from dubio.serving.store.export import MEDIA_TYPES
from dubio.serving.store.tables import Kept, State
from dubio.serving.v1 import review_schema
from dubio.serving.v1.review_schema import FILTERS, PAGING, ReviewChange, describe_query, read_query, usual_limit


def test_its_words_are_those_of_the_store() -> None:
    assert list(review_schema.STATES) == [each.value for each in State]
    assert list(review_schema.KEPT) == [each.value for each in Kept]
    assert set(review_schema.FORMATS) == set(MEDIA_TYPES)
    assert {prediction.OUT_OF_RANGE, prediction.NOT_CALIBRATED} <= set(review_schema.REASONS)


def test_values_are_read_and_absent_ones_left_out() -> None:
    values = read_query(
        [("model", "digits"), ("since", "2026-01-01T00:00:00Z"), ("until", "2026-01-01T01:00:00+01:00")], FILTERS
    )
    assert values == {"model": "digits", "since": 1767225600000, "until": 1767225600000}
    assert usual_limit(read_query([("limit", "7")], PAGING)) == 7
    assert usual_limit({}) == 50
    with pytest.raises(InvalidRequest, match="unknown parameter"):
        read_query([("limit", "7")], FILTERS)


def test_a_label_means_labelled() -> None:
    assert ReviewChange(label="7").decide() == "labelled"
    assert ReviewChange(state="labelled", label="7").decide() == "labelled"
    assert ReviewChange(state="not_for_us").decide() == "not_for_us"


def test_every_parameter_is_described() -> None:
    described = describe_query(FILTERS, ["model"])
    assert [each["name"] for each in described] == list(FILTERS)
    assert [each["name"] for each in described if each["required"]] == ["model"]
    assert all(each["description"].endswith(".") for each in described)
