from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from dubio.training.data.csv_reader import MISSING, TableFile
from dubio.training.errors import UnreadableData


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
    file = TableFile(written(tmp_path, "\ufeffa,b\n" + "".join(f"{word},1\n" for word in MISSING) + "2.5,1\n"), ",")
    assert file.frame["a"].to_list() == [None] * len(MISSING) + [2.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "expected line 3 to have 2 values as the header has, but it has 1"),
        ("a,b\n1,2\n3,4,5\n", "expected line 3 to have 2 values as the header has, but it has 3"),
        ("a,b\n1,2\n\n3,4\n", "expected line 3 to have 2 values as the header has, but it has 0"),
        ('a,b\n1,"x\ny"\n3\n', "expected line 4 to have 2 values"),
        ("a,b,a\n1,2,3\n", "2 are called 'a'"),
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
    ("values", "slip"), [(["1", "2", "x"], "x"), (["1", " 2", "3"], " 2"), (["1,5", "2", "3"], "1,5")]
)
def test_a_slip_among_numbers_is_named_in_a_csv_file_only(tmp_path: Path, values: list[str], slip: str):
    frame = pl.DataFrame({"a": values, "b": ["x", "y", "z"]})
    frame.write_csv(tmp_path / "f.csv")
    frame.write_parquet(tmp_path / "f.parquet")
    with pytest.raises(UnreadableData, match=f"line {values.index(slip) + 2} has '{slip}'"):
        TableFile(tmp_path / "f.csv", ",").refuse_text_among_numbers("a")
    TableFile(tmp_path / "f.csv", ",").refuse_text_among_numbers("b")
    TableFile(tmp_path / "f.parquet", ",").refuse_text_among_numbers("a")
