from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from dubio.models.errors import InvalidInput
from dubio.models.inputs.tabular import CategoricalColumn, NumericColumn, Table, width

AGE = NumericColumn(kind="numeric", name="age", low=18.0, high=90.0, fill=40.0, missing=True)
COLOUR = CategoricalColumn(kind="categorical", name="colour", categories=["red", "blue"], missing=False)
CITY = CategoricalColumn(kind="categorical", name="city", categories=["Bern"], missing=True)
TABLE = Table([AGE, COLOUR, CITY])
ROW: dict[str, Any] = {"age": 30, "colour": "blue", "city": "Bern"}


def test_each_number_has_a_name_and_a_meaning():
    assert TABLE.features == [
        "age",
        "age is missing",
        "colour = red",
        "colour = blue",
        "colour is unseen",
        "city = Bern",
        "city is missing",
        "city is unseen",
    ]
    assert width([AGE, COLOUR, CITY]) == 8
    rows = [ROW, {"age": None, "colour": "green", "city": None}]
    expected = [[30, 0, 0, 1, 0, 1, 0, 0], [40, 1, 0, 0, 1, 0, 1, 0]]
    assert TABLE.read(rows).tolist() == expected
    assert TABLE.read(rows).dtype == np.float32


def test_the_order_of_the_keys_does_not_matter():
    assert np.array_equal(TABLE.read([dict(reversed(ROW.items()))]), TABLE.read([ROW]))


def test_names_of_columns_are_read_as_those_of_a_file():
    city = CITY.model_copy(update={"name": "Gr\u00f6\u00dfe"})
    table = Table([AGE, city])
    due = table.read([{"age": 30, "Gr\u00f6\u00dfe": "Bern"}])
    assert np.array_equal(table.read([{" age": 30, "Gro\u0308\u00dfe\u00a0": "Bern"}]), due)
    with pytest.raises(InvalidInput, match="no unknown column, but got ' age'"):
        table.read([{"age": 30, " age": 31, "Gr\u00f6\u00dfe": "Bern"}])


def test_numbers_and_categories_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    ages = [None if random.random() < 0.2 else float(random.integers(18, 91)) for _ in range(60)]
    colours = [str(random.choice(["red", "blue"])) for _ in range(60)]
    raw = np.array(
        [[math.nan if age is None else age, colour] for age, colour in zip(ages, colours, strict=True)], object
    )
    peer = ColumnTransformer(
        [
            ("age", SimpleImputer(strategy="median", add_indicator=True), [0]),
            ("colour", OneHotEncoder(categories=[["red", "blue"]], handle_unknown="ignore"), [1]),
        ],
        sparse_threshold=0,
    )
    expected = peer.fit_transform(raw).astype(np.float32)
    fill = float(np.median([age for age in ages if age is not None]))
    column = AGE.model_copy(update={"fill": fill})
    found = Table([column, COLOUR]).read([{"age": a, "colour": c} for a, c in zip(ages, colours, strict=True)])
    np.testing.assert_array_equal(found[:, :4], expected)
    assert not found[:, 4].any()


def test_what_no_training_row_had_is_outside():
    rows = [
        ROW,
        {**ROW, "age": 17.5},
        {**ROW, "age": 91},
        {**ROW, "colour": "green"},
        {**ROW, "age": None, "city": None},
    ]
    assert TABLE.outside(torch.from_numpy(TABLE.read(rows))).tolist() == [False, True, True, True, False]
    edges = [{**ROW, "age": 18}, {**ROW, "age": 90}]
    assert TABLE.outside(torch.from_numpy(TABLE.read(edges))).tolist() == [False, False]


def test_whole_numbers_and_truth_values_stand_for_their_names():
    postal = CategoricalColumn(kind="categorical", name="code", categories=["8001", "true"], missing=False)
    rows = [{"code": value} for value in (8001, 8001.0, "8001", " 8001.0", True, "True", "TRUE", "08001", 1.5)]
    assert Table([postal]).read(rows).tolist() == [[1, 0, 0]] * 4 + [[0, 1, 0]] * 3 + [[0, 0, 1]] * 2


def test_what_looks_like_a_name_is_read_as_that_name():
    city = CategoricalColumn(kind="categorical", name="city", categories=["Z\u00fcrich", "New York"], missing=False)
    names = ["Z\u00fcrich", "Zu\u0308rich", "z\u00fcrich ", "Z\u00fc\u200brich", "New York", "new\u00a0york", "NewYork"]
    read = Table([city]).read([{"city": name} for name in names])
    assert read.argmax(1).tolist() == [0, 0, 0, 0, 1, 1, 2]


def test_texts_that_stand_for_a_missing_value_do_so_in_a_request_too():
    table = Table([AGE, CITY], missing=["NA", "none "])
    holes = table.read([{"age": value, "city": value} for value in (None, "", "  ", "NA", " NA", "none")])
    assert holes.tolist() == [[40, 1, 0, 1, 0]] * 6
    with pytest.raises(InvalidInput, match="to be a finite number, but got the text 'na'"):
        table.read([{"age": "na", "city": None}])
    with pytest.raises(InvalidInput, match="to have a value, but it is missing"):
        Table([COLOUR], missing=["NA"]).read([{"colour": "NA"}])


def test_numbers_far_from_0_are_told_apart():
    now = 1_700_000_000_000
    time = NumericColumn(kind="numeric", name="ms", low=now - 9, high=now + 9, fill=now, missing=True, offset=now)
    rows = [{"ms": value} for value in (now - 9, now + 1, float(now + 2), now + 9, None, now + 10, now - 10)]
    read = Table([time]).read(rows)
    assert read[:, 0].tolist() == [-9, 1, 2, 9, 0, 10, -10]
    assert Table([time]).outside(torch.from_numpy(read)).tolist() == [False] * 5 + [True] * 2
    assert (time.example, time.offsets) == (now, [now, 0.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"age": "30"},
            r"\['age'\] to be a finite number, but got the text '30'; .* such as 40 is taken, without quotes",
        ),
        ({"age": True}, "but got true"),
        ({"age": math.nan}, "got nan; a number such as 40 is taken, .* and null where it is missing"),
        ({"age": math.inf}, "inf"),
        ({"age": 1e39}, "the number 1e[+]39"),
        ({"age": 10**400}, "that no float can hold"),
        ({"age": [1]}, "a list of 1;"),
        ({"colour": math.nan}, r"\['colour'\] to be the name of a category, but got nan"),
        ({"colour": ""}, r"\['colour'\] to have a value, but it is missing"),
        ({"colour": {}}, "an object;"),
        (
            {"colour": None},
            r"\['colour'\] to have a value, but it is missing, and in no row of the training file it was",
        ),
        ({"color": "red"}, r"no unknown column, but got 'color'; did you mean `colour`\? Leave out what"),
        ({"zzz": 1}, "the columns are 'age', 'colour', 'city'"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_row_and_column(change: dict[str, Any], message: str):
    with pytest.raises(InvalidInput, match=message):
        TABLE.read([{**ROW, **change}])


def test_a_row_needs_every_column():
    with pytest.raises(InvalidInput, match=r"instances\[1\] to .* column, but 'colour' is absent; send it, as no row"):
        TABLE.read([ROW, {"age": 1, "city": None}])
    with pytest.raises(
        InvalidInput, match="'age', 'colour', 'city' are absent; send them, and null for a value of 'age', 'city' "
    ):
        TABLE.read([{}])
    with pytest.raises(InvalidInput, match="'age', 'city' are absent; send null for a value that is missing"):
        TABLE.read([{"colour": "red"}])


@pytest.mark.parametrize("instance", [[30, "blue", "Bern"], "row", 3, None, True])
def test_a_row_is_an_object(instance: object):
    with pytest.raises(InvalidInput, match=r'an object with a value for each column, like \{"age": 40.0, ...\}'):
        TABLE.read([instance])


# A busy machine makes inputs slowly; no time is asserted.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@patient
@given(
    st.fixed_dictionaries(
        {}, optional={"age": json_values, "colour": json_values, "city": json_values, "x": json_values}
    )
)
def test_any_json_is_read_or_refused(row: dict[str, Any]):
    try:
        numbers = TABLE.read([row])
    except InvalidInput as error:
        said = str(error)
        assert len(said) < 1000
    else:
        assert numbers.shape == (1, 8)
        assert np.isfinite(numbers).all()


def test_its_own_example_is_read_and_is_inside():
    assert not TABLE.outside(torch.from_numpy(TABLE.read([TABLE.example()]))).any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AGE.model_validate({**AGE.model_dump(), "fill": 17.0}), "low <= fill <= high"),
        (lambda: COLOUR.model_validate({**COLOUR.model_dump(), "categories": ["red", "red"]}), "once"),
        (lambda: COLOUR.model_validate({**COLOUR.model_dump(), "categories": ["No", "no"]}), "looks like another"),
        (lambda: COLOUR.model_validate({**COLOUR.model_dump(), "categories": []}), "at least 1"),
        (lambda: COLOUR.model_validate({**COLOUR.model_dump(), "categories": ["a"] * 2000}), "at most 1024"),
        (lambda: AGE.model_validate({**AGE.model_dump(), "low": -math.inf}), "finite"),
    ],
)
def test_a_column_that_makes_no_sense_is_refused(build, message: str):
    with pytest.raises(ValidationError, match=message):
        build()
