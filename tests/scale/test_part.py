from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dubio.models.errors import InvalidInput
from dubio.scale.job import Job
from dubio.scale.part import PartScorer
from dubio.scale.readers.rows import Reading, Span


def scorer(checkpoint: Path, path: Path, stops: bool = False) -> PartScorer:
    job = Job((str(checkpoint),), str(path), ".parquet", Reading(ids=("key",)), {"strategy": "loop"}, stops, 10)
    return PartScorer(job)


@pytest.fixture
def path(tmp_path: Path, rows: np.ndarray) -> Path:
    rows[4] = np.nan
    np.savez(tmp_path / "rows.npz", x=rows, key=np.arange(100, 131))
    return tmp_path / "rows.npz"


def test_a_part_holds_the_rows_of_its_span(numbers_checkpoint: Path, path: Path):
    told: list[int] = []
    part = scorer(numbers_checkpoint, path).score(3, Span(2, 5), told.append)
    assert (part.number, part.rows, sum(told)) == (3, 5, 5)
    answers = pl.read_parquet(io.BytesIO(part.answers))
    assert answers["row"].to_list() == [2, 3, 5, 6]
    assert answers["key"].to_list() == [102, 103, 105, 106]
    (reject,) = map(json.loads, part.rejects.splitlines())
    assert (reject["row"], reject["key"]) == (4, 104)
    assert reject["reason"].startswith("Expected finite values, but it has NaN")


def test_a_part_without_a_good_row_has_the_columns_of_the_others(numbers_checkpoint: Path, path: Path):
    scores = scorer(numbers_checkpoint, path)
    none, some = (pl.read_parquet(io.BytesIO(scores.score(0, Span(first, 1)).answers)) for first in (4, 5))
    assert len(none) == 0
    assert none.schema == some.schema


def test_a_source_that_shrank_is_told(numbers_checkpoint: Path, tmp_path: Path):
    (tmp_path / "rows.csv").write_text("key,a,b,c,d,e\nk,1,2,3,4,5\n")
    with pytest.raises(InvalidInput, match="expected 3 rows from row 0 on, but got 1; it changed while it was read"):
        scorer(numbers_checkpoint, tmp_path / "rows.csv").score(0, Span(0, 3, 14, 2))
