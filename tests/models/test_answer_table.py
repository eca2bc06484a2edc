from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from torch import Tensor

from dubio.models import Predictor, answer_table


def test_each_field_is_a_column_of_what_was_predicted(loaded: Predictor, rows: Tensor):
    answer = loaded.predict(rows)
    told = answer_table.frame(answer_table.columns(answer, loaded.classes))
    assert {name.split(".")[0] for name in told.columns} <= set(answer_table.FIELDS)
    for field, values in (("deterministic.probabilities", answer.probabilities), ("mc.std", answer.mc_std)):
        assert np.array_equal(told.select(f"{field}.{name}" for name in loaded.classes).to_numpy(), values)
    assert told["mc.label"].to_list() == [loaded.classes[label] for label in answer.mc_label]
    assert told["ood.p_value"].to_list() == answer.p_value.tolist()
    assert told["ood.reason"].to_list() == answer.reasons
    assert told["decision.accepted"].to_list() == answer.decisions[0].accepted.tolist()
    for held, mean, labels in zip(answer.label_set, answer.mc_mean, told["label_set.labels"], strict=True):
        due = sorted(np.flatnonzero(held), key=lambda index: -mean[index])
        assert json.loads(labels) == [loaded.classes[index] for index in due]


def test_a_label_set_names_the_most_probable_first_however_many_there_are(loaded: Predictor, rows: Tensor):
    answer = loaded.predict(rows[:3])
    sets = np.array([[True, True, True], [False, True, False], [False, False, False]])
    mean = np.array([[0.2, 0.3, 0.5]] * 3, dtype=np.float32)
    answer = replace(
        answer,
        label_sets=replace(answer.label_sets, contains=sets),
        monte_carlo=replace(answer.monte_carlo, mean=mean),
    )
    told = answer_table.columns(answer, loaded.classes)["label_set.labels"].tolist()
    assert list(map(json.loads, told)) == [["right", "middle", "left"], ["middle"], []]


def test_types_do_not_depend_on_what_is_missing(loaded: Predictor, rows: Tensor):
    whole, fewer, none = (
        answer_table.frame(answer_table.columns(answer, loaded.classes))
        for answer in (loaded.predict(rows), loaded.predict(rows, samples=3), loaded.predict(rows).rows(0, 0))
    )
    assert whole.schema == fewer.schema == none.schema
    assert fewer["ood.flagged"].null_count() == fewer["label_set.labels"].null_count() == len(rows)
    assert len(none) == 0


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_no_spreadsheet_computes_what_a_stranger_wrote(suffix: str, tmp_path: Path):
    texts = [
        '=HYPERLINK("http://evil.example","x")',
        "+1+1",
        "-1+1",
        "@SUM(1)",
        "\t=1",
        "-1.5",
        "+41 79",
        "a=b",
        "",
        None,
    ]
    frame = pl.DataFrame({"=name": texts, "number": [-float(i) for i in range(len(texts))]})
    answer_table.write(frame, path := tmp_path / f"told.{suffix}", f".{suffix}")
    if suffix != "csv":
        assert {"parquet": pl.read_parquet, "jsonl": pl.read_ndjson}[suffix](path).to_dicts() == frame.to_dicts()
        return
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["'=name", "number"]
    kept = ["-1.5", "a=b", "", ""]
    assert [row[0] for row in rows] == [*(f"'{text}" for text in texts[:5]), "-1.5", "'+41 79", *kept[1:]]
    assert [float(row[1]) for row in rows] == frame["number"].to_list()
