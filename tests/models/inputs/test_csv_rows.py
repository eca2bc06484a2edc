from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubio.models.inputs.csv_rows import CsvRows

CELLS = st.text(alphabet='aü,;"\n\r \t', max_size=4)


@given(rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=12), every=st.integers(1, 5))
def test_rows_are_the_same_from_whatever_place_they_are_read(
    rows: list[list[str]], every: int, tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    quoted = (",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [["a", "b"], *rows])
    path.write_text("\n".join(quoted), encoding="utf-8", newline="")
    file = CsvRows(path)
    whole = list(file.read())
    assert [row.cells for row in whole] == rows
    assert [row.problem for row in whole] == [None] * len(rows)
    places = list(file.places(every))
    assert [count for _, count in places] == [min(every, len(rows) - first) for first in range(0, len(rows), every)]
    for number, (place, _) in enumerate(places):
        assert list(file.read(place)) == whole[number * every :]


def test_lines_are_counted_as_an_editor_does(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbf\r\na,b\r\n"1\r\n\r\n2",3\r\n\r\n4,5\r\n6\r\n')
    file = CsvRows(path)
    assert file.header == ["a", "b"]
    assert [(row.line, row.cells) for row in file.read()] == [(3, ["1\r\n\r\n2", "3"]), (7, ["4", "5"]), (8, ["6"])]
    (place, _), *_ = list(file.places(2))
    assert place.line == 3
    assert [row.problem is None for row in file.read()] == [True, True, False]
