from __future__ import annotations

import math

import polars as pl
import pytest

from dubio.models.inputs import numbers as plain_numbers
from dubio.training.errors import TrainingError
from dubio.training.readers.number_format import NumberFormat

PLAIN = NumberFormat()


@pytest.mark.parametrize(
    ("numbers", "text", "value"),
    [
        (PLAIN, "+3", 3.0),
        (PLAIN, " -0.5 ", -0.5),
        (PLAIN, ".5", 0.5),
        (PLAIN, "5.", 5.0),
        (PLAIN, "1E+5", 1e5),
        (PLAIN, "Infinity", math.inf),
        (PLAIN, "-inf", -math.inf),
        (NumberFormat(thousands=","), "1,234,567.5", 1234567.5),
        (NumberFormat(thousands=","), "1234.5", 1234.5),
        (NumberFormat(decimal=","), "3,5", 3.5),
        (NumberFormat(decimal=",", thousands="."), "-1.234,5", -1234.5),
        (NumberFormat(decimal=",", thousands=" "), "1\u00a0234 567,5", 1234567.5),
        (NumberFormat(thousands="'"), "1'000", 1000.0),
    ],
)
def test_a_number_is_read_as_it_is_written(numbers: NumberFormat, text: str, value: float):
    assert numbers.read(pl.Series([text])).to_list() == [value]


@pytest.mark.parametrize("text", ["nan", "NaN", "NAN", "-nan", "+NaN"])
def test_no_number_in_any_spelling_is_nan(text: str):
    assert PLAIN.read(pl.Series([text])).is_nan().all()


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        (PLAIN, "1,234"),
        (PLAIN, "1_000"),
        (PLAIN, "0x10"),
        (PLAIN, "3 kg"),
        (PLAIN, ""),
        (PLAIN, "infinite"),
        (NumberFormat(thousands=","), "12,34"),
        (NumberFormat(thousands=","), "1,5"),
        (NumberFormat(decimal=","), "1.5"),
        (NumberFormat(decimal=",", thousands="."), "1.5"),
    ],
)
def test_what_is_written_otherwise_is_no_number(numbers: NumberFormat, text: str):
    assert numbers.read(pl.Series([text, "x", None])).to_list() == [None] * 3


@pytest.mark.parametrize(
    "text",
    [
        *("7", "1,234", "$5.00", "-$5", "5 \u20ac", "CHF 5", "12%", "3 kg", "20\u00b0C", "<0.1", "(12)", "03/14/2024"),
        *(
            "2024-01-05",
            "14.3.2024",
            "12:30",
            "5 Jan 2024",
            "Jan 5, 2024",
            "3,5",
            "1.234,5",
            "1 234",
            "\u22125",
            "0x1F",
        ),
    ],
)
def test_what_a_reader_takes_for_a_number_resembles_one(text: str):
    assert PLAIN.resembles(pl.Series([text])).all()


@pytest.mark.parametrize(
    "text", ["red", "A1", "Q3", "5th Avenue", "18-25", "65+", "room 5", "T2N0", "x", "-", "stage 3"]
)
def test_names_do_not(text: str):
    assert not PLAIN.resembles(pl.Series([text])).any()


@pytest.mark.parametrize(
    ("texts", "cure"),
    [
        (["1,234", "5", "1,234,567"], "set `data.init_args.thousands` to ','"),
        (["1,5", "5", "12,25"], "set `data.init_args.decimal` to ','"),
        (["1,500", "5"], "set `data.init_args.thousands` to ',' or `data.init_args.decimal` to ','"),
        (["1.234,5", "2"], "set `data.init_args.decimal` to ',' and `data.init_args.thousands` to '.'"),
        (["1 234", "5"], "set `data.init_args.thousands` to ' '"),
    ],
)
def test_the_setting_that_reads_a_column_is_named_and_does(texts: list[str], cure: str):
    column = pl.Series(texts)
    assert PLAIN.cure(texts[0], column) == cure
    setting = dict(
        part.removeprefix("set ").split("` to ") for part in cure.split(" or ", maxsplit=1)[0].split(" and ")
    )
    chosen = {name.removeprefix("`data.init_args."): sign.strip("'") for name, sign in setting.items()}
    assert NumberFormat(**chosen).read(column).null_count() == 0


def test_other_slips_have_other_cures():
    assert "strip its sign, unit or currency" in PLAIN.cure("3 kg", pl.Series(["3 kg", "4"]))
    assert NumberFormat(",").cure("3.5", pl.Series(["3.5"])).endswith("or write the numbers of all columns alike")
    assert PLAIN.cure("unknown", pl.Series(["unknown", "4"]), learned=True) == (
        "mend it; if it says that there is none, leave the cell empty, or fit again with it under "
        "`data.init_args.missing`"
    )
    assert "data.init_args.missing" in PLAIN.cure("unknown", pl.Series(["unknown", "4"]))


def test_dates_are_told_from_numbers():
    texts = pl.Series(
        ["2026-01-31", "14.3.2026", "12:30", "5 Jan 2024", " 2026-01-31T08:00 ", "3.5", "3 kg", "x", None]
    )
    assert PLAIN.dates(texts).to_list() == [True] * 5 + [False] * 4


def test_whole_numbers_stay_whole():
    assert PLAIN.read_whole(pl.Series(["+3", "-4", None, "08"])).to_list() == [3, -4, None, 8]
    assert PLAIN.read_whole(pl.Series(["3", "4.0"])) is None
    assert PLAIN.read_whole(pl.Series(["9" * 30])) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decimal": ".."}, "`data.init_args.decimal` to be one sign"),
        ({"thousands": "0"}, "`data.init_args.thousands` to be one sign"),
        ({"thousands": "-"}, "one sign"),
        ({"decimal": ",", "thousands": ","}, "to differ"),
    ],
)
def test_signs_that_make_no_format_are_refused(settings: dict[str, str], message: str):
    with pytest.raises(TrainingError, match=message):
        NumberFormat(**settings)


@pytest.mark.parametrize(
    "text",
    [
        *("3", "+3", "-0.5", " 7 ", "5.", ".5", "1e5", "1E-5", "inf", "-Infinity", "nan", "-NaN", "08", "1.7976e308"),
        *("", " ", "3 kg", "3,5", "1_000", "0x10", "1e", ".", "+", "--3", "infinite", "1\n2", "\u0663", "true", "None"),
    ],
)
def test_a_data_frame_is_read_as_a_file_is(text: str):
    (expected,) = PLAIN.read(pl.Series([text])).to_list()
    assert plain_numbers.read(text) == (pytest.approx(expected, nan_ok=True) if expected is not None else None)
