from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.scale.readers.parquet_file import ParquetFile
from dubio.scale.readers.rows import Reading

SPEC = InputSpec(kind="numbers", shape=(2,), mean=(0.0,) * 2, std=(1.0,) * 2, low=-1, high=1)
A, B = [float(row) for row in range(10)], [row * row for row in range(10)]


@pytest.mark.parametrize("rows", [1, 4, 10, 11])
@pytest.mark.parametrize("form", ["columns", "lists", "arrays"])
def test_spans_are_read_in_any_order(form: str, rows: int, tmp_path: Path):
    keys = pl.Series("key", list(range(10)), dtype=pl.Int8)
    pairs = [list(pair) for pair in zip(A, B, strict=True)]
    kind = {"lists": pl.List(pl.Float32), "arrays": pl.Array(pl.Float64, 2)}.get(form)
    frame = pl.DataFrame({"a": A, "b": B}) if kind is None else pl.DataFrame({"x": pl.Series(pairs, dtype=kind)})
    frame.with_columns(keys).write_parquet(tmp_path / "a.parquet", row_group_size=3)
    file = ParquetFile(tmp_path / "a.parquet", SPEC, Reading(ids=("key",)))
    read = [batch for span in reversed(list(file.spans(rows))) for batch in file.read(span, 3)]
    read.sort(key=lambda batch: batch.first)
    assert np.concatenate([batch.inputs["x"] for batch in read]).tolist() == pairs
    assert pl.concat([batch.ids for batch in read])["key"].equals(keys)


def test_holes_spoil_their_row_alone(tmp_path: Path):
    pl.DataFrame({"a": [1.0, None, 3.0], "b": [1, 2, 3]}).write_parquet(tmp_path / "a.parquet")
    file = ParquetFile(tmp_path / "a.parquet", SPEC, Reading())
    (batch,) = (batch for span in file.spans(10) for batch in file.read(span, 10))
    assert batch.errors == [None, "Expected a number in each column, but one is missing.", None]
    pl.DataFrame({"x": [[1.0, 2.0], None, [3.0]]}).write_parquet(tmp_path / "b.parquet")
    file = ParquetFile(tmp_path / "b.parquet", SPEC, Reading())
    (batch,) = (batch for span in file.spans(10) for batch in file.read(span, 10))
    assert batch.inputs["x"].tolist() == [[1.0, 2.0], None, [3.0]]


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": ["x"], "b": [1]}).write_parquet(path)
    with pytest.raises(InvalidInput, match="Expected column 'a' to hold numbers, but it holds String"):
        ParquetFile(path, SPEC, Reading())
    path.write_bytes(b"none")
    with pytest.raises(InvalidInput, match="cannot be read"):
        ParquetFile(path, SPEC, Reading())
