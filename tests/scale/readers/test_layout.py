from __future__ import annotations

import pytest

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.models.inputs.tabular import NumericColumn
from dubio.scale.readers.layout import Layout
from dubio.scale.readers.rows import Reading

COLUMNS = [NumericColumn(kind="numeric", name=name, low=0, high=9, fill=4, missing=False) for name in ("a", "b")]
TABLE = InputSpec(kind="table", shape=(2,), mean=(0.0,) * 2, std=(1.0,) * 2, low=0, high=9, columns=COLUMNS)
NUMBERS = InputSpec(kind="numbers", shape=(2,), mean=(0.0,) * 2, std=(1.0,) * 2, low=-1, high=1)


def test_a_table_takes_its_own_columns_whatever_their_order():
    reading = Reading(ids=("key", "a"), ignore=("label",))
    assert Layout.of(["label", "b", "a", "key"], TABLE, reading) == Layout(("a", "b"))


def test_numbers_are_one_column_or_all_that_are_not_spoken_for():
    reading = Reading(ids=("key",), ignore=("label", "absent"))
    assert Layout.of(["key", "q", "label", "p"], NUMBERS, reading, spreads=True) == Layout(("q", "p"), spread=True)
    assert Layout.of(["key", "x"], NUMBERS, reading, spreads=True) == Layout(("x",))
    assert Layout.of(["q", "p", "key"], NUMBERS, Reading(ids=("key",), field="p"), spreads=True) == Layout(("p",))


@pytest.mark.parametrize(
    ("held", "reading", "said"),
    [
        (["a"], Reading(), "Expected a column 'b', but there is none"),
        (["a", "b", "aa"], Reading(), "but got 'aa'; carry it over with --ids 'aa', or leave it aside with --ignore"),
        (["a", "b"], Reading(ids=("c",)), "Expected a column 'c' to carry over"),
        (["a", "b", "mc.x"], Reading(ids=("mc.x",)), "but got 'mc.x': answers have"),
    ],
)
def test_columns_that_do_not_fit_are_refused(held: list[str], reading: Reading, said: str):
    with pytest.raises(InvalidInput, match=said):
        Layout.of(held, TABLE, reading)
    with pytest.raises(InvalidInput, match="Expected 2 columns of numbers"):
        Layout.of(["p"], NUMBERS, Reading(), spreads=True)
