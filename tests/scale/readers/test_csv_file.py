from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.scale.readers.csv_file import CsvFile
from dubio.scale.readers.rows import Reading

NUMBERS = InputSpec(kind="numbers", shape=(2,), mean=(0.0,) * 2, std=(1.0,) * 2, low=-1, high=1)
# A header behind a byte-order mark, blank lines, quotes over several lines, and rows that are none.
TEXT = '\n\ufeffkey,a,b\n"x\ny",1,2\n\n\nü,+3.5e0,.5\nz,4\nw,1_0,2\n"q"r,1,2\nlast,5,6'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(TEXT.removeprefix("\n"), encoding="utf-8")
    return path


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
@pytest.mark.parametrize("most", [1, 2, 100])
def test_spans_hold_all_rows_once_wherever_they_begin(rows: int, most: int, path: Path):
    file = CsvFile(path, NUMBERS, Reading(ids=("key",)))
    spans = list(file.spans(rows))
    assert [span.first for span in spans] == list(range(0, 6, rows))
    assert sum(span.rows for span in spans) == 6
    read = [batch for span in reversed(spans) for batch in file.read(span, most)]
    found = sorted(
        (batch.first + index, batch.lines[index], batch.ids["key"][index], batch.inputs["x"][index].tolist(), error)
        for batch in read
        for index, error in enumerate(batch.errors)
    )
    assert [row for row, *_ in found] == list(range(6))
    assert [line for _, line, *_ in found] == [2, 6, 7, 8, 9, 10]
    assert [key for _, _, key, *_ in found] == ["x\ny", "ü", None, "w", None, "last"]
    assert [x for *_, x, error in found if error is None] == [[1, 2], [3.5, 0.5], [5, 6]]
    errors = [error for *_, error in found]
    assert errors[2].startswith("expected line 7 to have 3 values as the header has, but it has 2")
    assert errors[3] == "Expected column 'a' to be a number with decimal '.', but got the text '1_0'."
    assert errors[4].startswith("cannot be read: line 9: ")


def test_bytes_that_are_no_text_spoil_their_row_alone(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"key,a,b\nk,1,2\n\xff,3,4\nm,5,6\n")
    file = CsvFile(path, NUMBERS, Reading(ids=("key",)))
    (batch,) = (batch for span in file.spans(10) for batch in file.read(span, 10))
    assert batch.ids["key"].to_list() == ["k", None, "m"]
    assert batch.errors[1] == "cannot be read: expected text in UTF-8, but line 3 is not; convert it."
    assert batch.inputs["x"][[0, 2]].tolist() == [[1, 2], [5, 6]]


def test_a_quote_that_is_never_closed_says_which_lines_it_takes(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n" + '"3,4\n' + "5,6\n" * 50_000)
    file = CsvFile(path, NUMBERS, Reading())
    read = [batch for span in file.spans(1000) for batch in file.read(span, 1000)]
    errors = [error for batch in read for error in batch.errors]
    (error,) = filter(None, errors)
    begins, ends = map(int, error.removeprefix("cannot be read: lines ").split(":")[0].split(" to "))
    assert begins == 3
    assert len(errors) + ends - begins == 50_002  # what is not a row of its own is within these lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("a;b\n1;2\n", "set --separator ';'"),
        ("a,a\n1,2\n", "two are called 'a'"),
        ("a,b,c\n1,2,3\n", "Expected 2 columns of numbers"),
        ('"a,b\n', "cannot be read: line 1: "),
    ],
)
def test_a_header_that_does_not_fit_is_refused(text: str, said: str, tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=said):
        CsvFile(path, NUMBERS, Reading())


def test_tabs_and_commas_are_read_as_asked(tmp_path: Path):
    path = tmp_path / "rows.tsv"
    path.write_text("a\tb\n1,5\t-2\n1.5\t2\n")
    file = CsvFile(path, NUMBERS, Reading(decimal=","))
    (batch,) = (batch for span in file.spans(10) for batch in file.read(span, 10))
    assert np.array_equal(batch.inputs["x"][0], [1.5, -2])
    assert "but got the text '1.5'" in batch.errors[1]
