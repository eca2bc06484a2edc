from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from dubio.training.errors import UnreadableData
from dubio.training.readers.csv_reader import MISSING, TableFile
from dubio.training.readers.number_format import NumberFormat
from dubio.training.splits.timestamps import rank_times


def written(folder: Path, text: str) -> Path:
    path = folder / "f.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_row_is_where_an_editor_shows_it(tmp_path: Path):
    file = TableFile(written(tmp_path, 'a,b\n1,x\n2,"y\nz"\n3,w\n'), ",")
    assert file.frame.rows() == [(1, "x"), (2, "y\nz"), (3, "w")]
    assert [file.at(row) for row in range(3)] == ["line 2", "line 3", "line 5"]
    file.frame.write_parquet(tmp_path / "f.parquet")
    assert TableFile(tmp_path / "f.parquet", ",").at(2) == "row 2"


def test_names_keep_their_zeros(tmp_path: Path):
    path = written(tmp_path, "code,n\n08001,1\n8001,2\n,3\n")
    assert TableFile(path, ",", ["code"]).frame["code"].to_list() == ["08001", "8001", None]
    assert TableFile(path, ",").frame["code"].to_list() == [8001, 8001, None]


def test_each_word_for_missing_is_a_hole_and_a_byte_order_mark_is_no_name(tmp_path: Path):
    words = ["", " ", '""', "-nan", "+NaN", *MISSING]
    file = TableFile(written(tmp_path, "\ufeffa,b\n" + "".join(f"{word},1\n" for word in words) + "2.5,1\n"), ",")
    assert file.frame["a"].to_list() == [None] * len(words) + [2.5]
    assert file.cells["a"].to_list()[-2:] == [MISSING[-1], "2.5"]


def test_what_stands_for_missing_can_be_said(tmp_path: Path):
    path = written(tmp_path, "a,b\n-9,NA\nunknown,x\n3,\n")
    frame = TableFile(path, missing=["-9", " unknown"]).frame
    assert (frame["a"].to_list(), frame["b"].to_list()) == ([None, None, 3], ["NA", "x", None])


def test_a_column_that_casts_is_numeric(tmp_path: Path):
    cells = ["+3", "NAN", "-nan", " 4", "1e1", "", "-.5"]
    frame = TableFile(written(tmp_path, "a,b\n" + "".join(f"{cell},x\n" for cell in cells))).frame
    assert frame["a"].to_list() == [3.0, None, None, 4.0, 10.0, None, -0.5]
    european = written(tmp_path, "a;b\n1.234,5;x\n+2,5;x\n7;x\n")
    assert TableFile(european, ";", numbers=NumberFormat(",", ".")).frame["a"].to_list() == [1234.5, 2.5, 7.0]


def test_blanks_around_values_and_invisible_characters_are_no_part_of_them(tmp_path: Path):
    file = TableFile(written(tmp_path, 'a , b,c\n 1, red, "x, y"\n\u200b2\ufeff,\u00a0blue , "z"\n'))
    assert file.frame.columns == ["a", "b", "c"]
    assert file.frame.rows() == [(1, "red", "x, y"), (2, "blue", "z")]


@pytest.mark.parametrize("text", ["a;b;c\n1;2;3\n", "a;b;c\n1;2,5;3\n"])
def test_a_file_with_another_separator_is_told_which(tmp_path: Path, text: str):
    with pytest.raises(UnreadableData, match=r"one name that holds ';': 'a;b;c'; set `--data.separator ';'`"):
        TableFile(written(tmp_path, text), ",")
    assert TableFile(written(tmp_path, text), ";").frame.width == 3


def test_blank_lines_are_left_out_wherever_they_are(tmp_path: Path):
    file = TableFile(written(tmp_path, "\na,b\n1,2\n\n3,4\n   \n5,6\n\n\n"))
    assert file.frame.rows() == [(1, 2), (3, 4), (5, 6)]
    assert [file.at(row) for row in range(3)] == ["line 3", "line 5", "line 7"]


def test_the_name_of_a_file_says_what_is_between_its_columns_in_any_case(tmp_path: Path):
    for name, text in {"f.tsv": "a\tb\n1\t2\n", "F.CSV": "a,b\n1,2\n", "G.TSV": "a\tb\n1\t2\n"}.items():
        (tmp_path / name).write_text(text)
        assert TableFile(tmp_path / name).frame.rows() == [(1, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "expected line 3 to have 2 values as the header has, but it has 1"),
        ("a,b\n1,2\n3,4,5\n", "expected line 3 to have 2 values as the header has, but it has 3"),
        ('a,b\n1,"x\ny"\n3\n', "expected line 4 to have 2 values"),
        ("a,b,a\n1,2,3\n", "2 are called 'a'"),
        ("a,b,a \n1,2,3\n", "2 are called 'a'"),
        ("Age,b,age\n1,2,3\n", "column 1 has the column 'Age' and column 3 has 'age'; rename one"),
        ("new york,new\u00a0york\n1,2\n", "column 1 has the column 'new york' and column 2 has 'new.*xa0york'"),
        ('a,b\n1,"x\n2,y\n', "lines 2 to 3: .*mend its quotes"),
        ('a,b\n1,"x"y\n', "line 2: .*mend its quotes"),
        ("a,b\n", "expected rows"),
        ("", "cannot be read"),
    ],
)
def test_lines_that_do_not_fit_the_header_are_named(tmp_path: Path, text: str, message: str):
    with pytest.raises(UnreadableData, match=message) as caught:
        TableFile(written(tmp_path, text), ",")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path):
    (tmp_path / "f.csv").write_bytes(b"a,b\ncaf\xe9,1\n")
    with pytest.raises(UnreadableData, match="cannot be read"):
        TableFile(tmp_path / "f.csv", ",")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1", "2", "x"], "most of its values are numbers, and line 4 has 'x'; mend it, or .*missing"),
        (
            ["1,5", "2", "3"],
            "are numbers, and line 2 has '1,5'; set `data.init_args.decimal` to ','; or leave the column out",
        ),
        (["1,234", "2,345"], "look like numbers, and line 2 has '1,234'; set `data.init_args.thousands` to ',' or"),
        (["$5.00", "$6.00"], "look like numbers, and line 2 has .*; write it as a plain number"),
        (["12%", "13%"], "write it as a plain number"),
        (
            ["3 kg", "4 kg", "n/a"],
            r"line 2 has '3 kg'; write it as a plain number such as 3\.5: strip its sign, .*; or leave the column out "
            r"with `--data\.ignore '\[id, a\]'`; if these are names, say so with `--data\.categorical '\[zip, a\]'`",
        ),
        (
            ["unknown", "2026-01-31", "2026-02-01T08:00"],
            r"values are dates, and line 3 has '2026-01-31'; divide the rows by it with `--data\.time a`; or leave it "
            r"out with `--data\.ignore '\[id, a\]'`; or turn it into numbers, such as days since the first\.",
        ),
        (
            ["03/14/2024", "03/15/2024"],
            "values are dates, and line 2 has '03/14/2024'; divide .*, written as 2026-01-31",
        ),
        (["1", "Infinity", "2"], "finite numbers of 32 bits, but line 3 has 'Infinity'; mend it, leave the row out"),
        (["unknown"] * 30 + ["1", "2"], "look like numbers, and line 2 has 'unknown'; mend it"),
        ([f"{key:08x}-12ab-4c5d" for key in range(30)], "of its 30 values 30 are different, and line 2 .*ignore"),
        (["red"] * 12 + [f"row {row}" for row in range(20)], "of its 32 values 21 are different"),
        (["no", "No"], "line 2 has the name 'no' and line 3 has 'No'; write it one way"),
    ],
)
def test_numbers_and_keys_do_not_become_names(tmp_path: Path, values: list[str], message: str):
    pl.DataFrame({"a": values, "b": "x"}).write_csv(tmp_path / "f.csv")
    with pytest.raises(UnreadableData, match=message) as caught:
        TableFile(tmp_path / "f.csv").refuse_what_no_network_learns("a", ["id"], ["zip"])
    assert "expected column 'a' to h" in str(caught.value)
    if "No" not in values:
        named = TableFile(tmp_path / "f.csv", names=["a"])
        named.refuse_what_no_network_learns("a")
        assert named.frame["a"].to_list() == values


@pytest.mark.parametrize(
    "values", [["red", "blue"] * 9, ["T1", "T2", "T1"], ["18-25", "65+"], ["1", "2"], ["x", "y", "z"]]
)
def test_names_and_numbers_are_fine(tmp_path: Path, values: list[str]):
    pl.DataFrame({"a": values, "b": "x"}).write_csv(tmp_path / "f.csv")
    TableFile(tmp_path / "f.csv").refuse_what_no_network_learns("a")


@pytest.mark.parametrize("values", [["1", "2", "x"], ["1", "2"], ["3 kg", "4 kg"]])
def test_texts_of_a_parquet_file_that_look_like_numbers_are_named(tmp_path: Path, values: list[str]):
    pl.DataFrame({"a": values}).write_parquet(tmp_path / "f.parquet")
    with pytest.raises(UnreadableData, match=r"most of its texts look like numbers, and row .*numbers in the file"):
        TableFile(tmp_path / "f.parquet").refuse_what_no_network_learns("a")
    TableFile(tmp_path / "f.parquet", names=["a"]).refuse_what_no_network_learns("a")


def test_nan_in_a_parquet_file_is_a_hole_whatever_the_column_holds(tmp_path: Path):
    pl.DataFrame({"a": [1.0, float("nan"), None]}).write_parquet(tmp_path / "f.parquet")
    for names in ((), ("a",)):
        assert TableFile(tmp_path / "f.parquet", names=names).frame["a"].to_list() == [1.0, None, None]


@pytest.mark.parametrize("day", ["2026-01-31", date(2026, 1, 31), datetime(2026, 1, 31, 8)])
def test_dates_are_what_rows_can_be_divided_by_whatever_the_file_holds(tmp_path: Path, day: object):
    pl.DataFrame({"day": [None, day, day], "b": "x"}).write_parquet(tmp_path / "f.parquet")
    file = TableFile(tmp_path / "f.parquet")
    with pytest.raises(UnreadableData, match=r"values are dates, and row 1 has '2026-01-31.*`--data\.time day`"):
        file.refuse_what_no_network_learns("day")
    assert rank_times(file.frame["day"].to_list()[1:], "day", file.at).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (
            "5.1 mg",
            r"got the text '5\.1 mg'; write it as a plain number such as 3\.5: strip its .*; or leave the row out\.",
        ),
        ("3,5", r"got the text '3,5'; write it as a plain number such as 3\.5"),
        ("Infinity", r"got inf; mend it; or leave the row out\."),
        ("1e39", r"got 1e\+39; mend it"),
        (
            "lots",
            r"got the text 'lots'; mend it; if it says .* leave the cell empty, .*; or leave the row out\.",
        ),
        ("2026-01-31", r"got the text '2026-01-31'; write it as a plain number"),
    ],
)
def test_what_a_column_of_numbers_cannot_hold_is_named(tmp_path: Path, cell: str, told: str):
    file = TableFile(written(tmp_path, f'a,b\n1.5,x\nNA,x\n+2,x\n"{cell}",x\n'))
    with pytest.raises(UnreadableData, match=rf"f\.csv: expected line 5, column 'a' to be a finite number, .*{told}"):
        file.read_numbers("a")
    assert TableFile(written(tmp_path, "a,b\n1.5,x\nNA,x\n+2,x\n")).read_numbers("a") == [1.5, None, 2.0]


def test_numbers_of_a_parquet_file_may_be_texts_but_no_truth_values(tmp_path: Path):
    pl.DataFrame({"a": ["1.5", "None", None], "b": [True, None, False]}).write_parquet(tmp_path / "f.parquet")
    file = TableFile(tmp_path / "f.parquet")
    assert file.read_numbers("a") == [1.5, None, None]
    with pytest.raises(
        UnreadableData, match="row 0, column 'b' to be a finite number, as it was in the fit, but got True"
    ):
        file.read_numbers("b")
