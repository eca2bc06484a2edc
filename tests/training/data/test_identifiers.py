from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from dubio.training.data.identifiers import find, numbers

ROWS = 800
RANDOM = np.random.default_rng(0)
NUMBERS = np.arange(1, ROWS + 1)
IGNORE = "leave it out with `--data.ignore '[old, a]'`"
GROUP = ", or keep rows that share it in one split with `--data.group a`."
TIME = ", or divide the rows by it, if it is a time, with `--data.time a`."


def told(values: object, name: bool = False, **roles: str) -> list[str]:
    return find(pl.DataFrame({"a": values}), ["a"] if name else [], ["old"], **roles)


@pytest.mark.parametrize(
    ("values", "facts", "cure"),
    [
        (NUMBERS, "1, 2, 3, ... in the order of the rows (a row number?)", "."),
        (NUMBERS - 1.0, "0, 1, 2, ... in the order of the rows", "."),
        (NUMBERS[::-1], "800, 799, 798, ... in the order of the rows", "."),
        (3600 * NUMBERS, "3600, 7200, 10800, ... in the order of the rows", "."),
        (NUMBERS.cumsum(), "whole numbers that rise from row to row (a row number, or a time?)", TIME),
        (RANDOM.permutation(NUMBERS), "800 whole numbers from 1 to 800, each of them once (an identifier?)", "."),
        (NUMBERS // 2, "401 whole numbers in 800 rows, which never fall from row to row (an identifier?)", GROUP),
    ],
)
def test_numbers_that_number_the_rows_are_told_with_the_cure(values: np.ndarray, facts: str, cure: str):
    (line,) = told(values)
    assert line.startswith(f"column 'a' holds {facts}")
    assert line.endswith(f"; {IGNORE}{cure}")


@pytest.mark.parametrize(
    ("rows_a_name", "facts"),
    [
        (1, "800 names in 800 rows, so most occur once"),
        (2, "400 names in 800 rows, so most occur once or twice"),
        (5, "160 names in 800 rows, so most occur at most 5 times"),
    ],
)
def test_names_that_hardly_recur_are_told_with_the_cure(rows_a_name: int, facts: str):
    numbers = RANDOM.permutation(ROWS) // rows_a_name
    for values in (numbers, [f"P{number}" for number in numbers]):  # numbers can be listed as categorical
        assert told(values, name=True) == [f"column 'a' holds {facts}; {IGNORE}{GROUP}"]


@pytest.mark.parametrize(
    "values",
    [
        RANDOM.normal(size=ROWS),
        np.sort(RANDOM.normal(size=ROWS)),
        np.linspace(0, 1, ROWS),  # a continuous measurement, such as a time that was swept
        RANDOM.normal(40, 9, ROWS).round(),
        np.sort(RANDOM.integers(18, 90, ROWS)),
        RANDOM.integers(0, 2**40, ROWS),
        np.sort(RANDOM.integers(0, 2**40, ROWS))[::-1],
        np.arange(ROWS) % 7,
        np.full(ROWS, 3),
        [None, *range(1, ROWS)],
        [*range(14)],
        [True, False] * 20,
    ],
)
def test_measurements_are_fine(values: object):
    assert told(values) == []


@pytest.mark.parametrize(
    "values",
    [
        [("Bonn", "Kiel", "Ulm")[row % 3] for row in range(ROWS)],
        [f"c{row % 100}" for row in range(ROWS)],
        ["Bonn"] * 500 + [f"village {row}" for row in range(300)],  # most rows have a name that recurs
        ["x", "y", "z"],
    ],
)
def test_names_that_recur_are_fine(values: list[str]):
    assert told(values, name=True) == []


@pytest.mark.parametrize("rows", [20, 100, 800])
def test_numbers_that_are_all_different_by_chance_are_rarely_taken_for_an_identifier(rows: int):
    """The birthday problem, at the widest range for which a column is told."""
    widest = rows * (rows - 1) // 14
    values = [widest - 1, *range(rows - 1)]  # in no order
    assert numbers(pl.Series(values))[0] is not None
    assert numbers(pl.Series([widest, *values[1:]]))[0] is None
    assert math.prod(1 - row / widest for row in range(rows)) < 1e-3


def test_a_role_that_is_given_already_is_no_cure():
    assert told(NUMBERS // 2, group="b")[0].endswith(f"; {IGNORE}.")
    assert told(NUMBERS**2, time="b")[0].endswith(f"; {IGNORE}.")
    assert find(pl.DataFrame({"a": NUMBERS, "b": RANDOM.permutation(NUMBERS)}), [])[1].startswith(
        "column 'b' holds 800"
    )
