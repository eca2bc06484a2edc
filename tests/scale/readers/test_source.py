from __future__ import annotations

from pathlib import Path

import pytest

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.scale.readers.csv_file import CsvFile
from dubio.scale.readers.rows import Reading
from dubio.scale.readers.source import open_source

NUMBERS = InputSpec(kind="numbers", shape=(2,), mean=(0.0,) * 2, std=(1.0,) * 2, low=-1, high=1)


def test_a_file_is_what_its_name_ends_in(tmp_path: Path):
    (tmp_path / "rows.CSV").write_text("a,b\n1,2\n")
    assert isinstance(open_source(tmp_path / "rows.CSV", NUMBERS, Reading()), CsvFile)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.csv", "none.csv: no such file or folder"),
        ("a.xlsx", "a.xlsx: Expected a folder of images, or a file that ends in .csv, .tsv, "),
        ("a.csv", "a.csv: Expected 2 columns of numbers"),
    ],
)
def test_a_path_that_is_no_source_is_refused_by_name(name: str, said: str, tmp_path: Path):
    (tmp_path / "a.xlsx").write_text("")
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(InvalidInput, match=said):
        open_source(tmp_path / name, NUMBERS, Reading())
