from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from dubio.models.errors import InvalidInput
from dubio.scale.job import Job, as_trained, check_output
from dubio.scale.readers.rows import Reading
from tests import table


def test_a_file_is_read_as_that_of_the_fit_was(tmp_path: Path):
    more = ["--data.ignore", "[c]", "--data.decimal", ",", "--data.separator", ";"]
    source = table.write(tmp_path).with_suffix(".csv")
    source.write_text(source.read_text().replace(",", ";").replace(".", ","))
    checkpoint = table.fit(tmp_path, *more) / "model.ckpt"
    metadata, reading = as_trained(Reading(ids=(" key ",), ignore=("more",)), checkpoint)
    assert [column.name for column in metadata.input.columns] == ["a", "b"]
    assert reading == Reading(ids=("key",), ignore=("more", "c", "label"), separator=";", decimal=",")
    _, told = as_trained(Reading(separator="|"), checkpoint, ".")
    assert (told.separator, told.decimal) == ("|", ".")


def test_what_changes_answers_is_part_of_a_jobs_identity(tmp_path: Path):
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    job = Job((str(tmp_path / "model.ckpt"),), "in.csv", ".csv", Reading(), {"samples": None}, False, 10)
    assert pickle.loads(pickle.dumps(job)) == job  # workers get it so
    same = job.identity("stamp")
    assert replace(job, stops=True, model={"samples": None, "device": "cuda"}).identity("stamp") == same
    for other in (
        replace(job, reading=Reading(ids=("key",))),
        replace(job, model={"samples": 4}),
        replace(job, model={"batch_invariant": True}),
        replace(job, part_rows=11),
        replace(job, suffix=".parquet"),
        replace(job, input="other.csv"),
    ):
        assert other.identity("stamp") != same
    assert job.identity("another") != same
    (tmp_path / "model.ckpt").write_bytes(b"others")
    assert job.identity("stamp") != same


def test_only_known_formats_are_written():
    with pytest.raises(InvalidInput, match=r"Expected the output to end in \.csv, \.parquet or \.jsonl, but got 'a'"):
        check_output(Path("folder/a"))
