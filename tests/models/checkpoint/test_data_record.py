from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from dubio.models.checkpoint import data_record, file
from dubio.models.checkpoint.data_record import DataRecord, Division
from dubio.models.checkpoint.schema import KEY
from dubio.models.errors import UnreadableCheckpoint

DIVISION = {
    "data": "rows.csv",
    "settings": {"seed": 0, "train": 0.6},
    "rows": {"train": torch.tensor([2, 0]), "test": torch.tensor([1])},
    "digests": {"train": torch.tensor([7, -8]), "test": torch.tensor([9])},
}
RECORD = {
    "input": {"kind": "numbers", "shape": [2], "mean": [0.0, 0.0], "std": [1.0, 1.0], "low": 0.0, "high": 1.0},
    "classes": ["no", "yes"],
    "divisions": [DIVISION],
}


@pytest.mark.parametrize("key", [KEY, data_record.KEY])
def test_a_record_comes_back_from_a_file(key: str, tmp_path: Path):
    record = DataRecord.model_validate(RECORD)
    torch.save({key: {**record.model_dump(), "more": 1}}, tmp_path / "a.ckpt")
    read = file.data_record(tmp_path / "a.ckpt", file.read_content(tmp_path / "a.ckpt"))
    assert read is not None
    assert read.input == record.input
    assert read.classes == ["no", "yes"]
    (division,) = read.divisions
    assert division.settings == DIVISION["settings"]
    for part in ("rows", "digests"):
        for name, tensor in DIVISION[part].items():
            assert torch.equal(getattr(division, part)[name], tensor)


def test_a_file_that_says_nothing_has_none(tmp_path: Path):
    for content in ({"state_dict": {}}, {KEY: {**RECORD, "divisions": []}}):
        torch.save(content, tmp_path / "a.ckpt")
        assert file.data_record(tmp_path / "a.ckpt", content) is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rows", {"train": torch.tensor([0, 2]), "test": torch.tensor([-1])}, "every row number once"),
        ("rows", {"train": torch.tensor([0, 1]), "test": torch.tensor([1])}, "every row number once"),
        ("rows", {"train": torch.tensor([0, 1, 2])}, "a digest for each row"),
        ("digests", {"train": torch.tensor([7]), "test": torch.tensor([9])}, "a digest for each row"),
        ("digests", {"train": torch.tensor([7.0, 8.0]), "test": torch.tensor([9])}, "int64 tensor with one axis"),
        ("digests", {"train": [7, 8], "test": torch.tensor([9])}, "int64 tensor with one axis"),
        ("rows", {}, "at least 1 item"),
        ("data", "", "at least 1 character"),
    ],
)
def test_what_does_not_hold_together_is_refused(field: str, value: object, message: str):
    with pytest.raises(ValidationError, match=message):
        Division.model_validate({**DIVISION, field: value})


@pytest.mark.parametrize(
    "change",
    [
        lambda record: [record],
        lambda record: {**record, "classes": ["no"]},
        lambda record: {**record, "divisions": [DIVISION] * 3},
        lambda record: {**record, "divisions": [{**DIVISION, "settings": {"seed": "x" * 300}}]},
    ],
)
def test_a_damaged_record_is_told_with_its_file(change: Callable[[dict[str, Any]], object], tmp_path: Path):
    content = {data_record.KEY: change(RECORD)}
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(UnreadableCheckpoint, match=rf"a\.ckpt: field `{data_record.KEY}"):
        file.data_record(tmp_path / "a.ckpt", content)
