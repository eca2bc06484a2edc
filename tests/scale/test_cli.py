from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from dubio.scale.cli import main
from tests.scale.conftest import refused, same, score
from tests.serving.kinds import FILES, ROWS, TEXTS, predictions


def write_numbers(path: Path, x: np.ndarray) -> Path:
    """The rows in the format of a suffix, each with a key."""
    keys = [f"r{number}" for number in range(len(x))]
    if path.suffix == ".npz":
        np.savez(path, x=x, key=np.array(keys))
    elif path.suffix == ".jsonl":
        path.write_text(
            "".join(json.dumps({"key": key, "x": row}) + "\n" for key, row in zip(keys, x.tolist(), strict=True))
        )
    elif path.stem == "lists":
        pl.DataFrame({"key": keys, "x": x.tolist()}).write_parquet(path)
    else:
        frame = pl.DataFrame({"key": keys, **{f"n{index}": x[:, index] for index in range(x.shape[1])}})
        frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.npz", "rows.jsonl", "lists.parquet", "rows.parquet"])
def test_rows_of_numbers_are_answered_as_the_service_answers(
    name: str, suffix: str, numbers_checkpoint: Path, service: httpx.Client, rows: np.ndarray, tmp_path: Path
):
    source = write_numbers(tmp_path / name, rows)
    told = score(numbers_checkpoint, source, tmp_path / f"told{suffix}", "--ids", "key", "--part-rows", 7)
    assert told["row"].to_list() == list(range(31))
    assert told["key"].to_list() == [f"r{number}" for number in range(31)]
    for row, answer in zip(told.to_dicts(), predictions(service, "row", rows.tolist()), strict=True):
        same(row, answer)
    assert told["ood.flagged"][30]


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_a_table_is_answered_as_the_service_answers(
    name: str, table_checkpoint: Path, service: httpx.Client, tmp_path: Path
):
    source = tmp_path / name
    if source.suffix == ".parquet":
        pl.DataFrame([{**row, "member": str(row["member"])} for row in ROWS]).write_parquet(source)
    elif source.suffix == ".jsonl":
        source.write_text("\n".join(map(json.dumps, ROWS)))
    else:
        source.write_text("city,age,income,member\nBern, 40,2500.5,true\n,18,,False\nBasel,5000,.1,TRUE\n")
    told = score(table_checkpoint, source, tmp_path / "told.parquet")
    for row, answer in zip(told.to_dicts(), predictions(service, "table"), strict=True):
        same(row, answer)
        assert row["decision.accepted"] == answer["decision"]["accepted"]
        assert json.loads(row["label_set.labels"]) == answer["label_set"]["labels"]


@pytest.mark.parametrize("name", ["texts.txt", "texts.csv", "texts.jsonl"])
def test_texts_are_answered_as_the_service_answers(
    name: str, text_checkpoint: Path, service: httpx.Client, tmp_path: Path
):
    source = tmp_path / name
    if source.suffix == ".txt":
        source.write_text("\n".join(TEXTS), encoding="utf-8")
    elif source.suffix == ".csv":
        pl.DataFrame({"n": range(3), "text": TEXTS}).write_csv(source)
    else:
        source.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    told = score(text_checkpoint, source, tmp_path / "told.jsonl")
    for row, answer in zip(told.to_dicts(), predictions(service, "text"), strict=True):
        same(row, answer)


def test_a_folder_of_images_is_answered_as_the_service_answers(
    pixels_checkpoint: Path, service: httpx.Client, tmp_path: Path
):
    names = ["a/deep/1.png", "a/2.png", "b.png"]
    for name, content in zip(names, FILES, strict=True):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(content)
    (tmp_path / "images" / "notes.txt").write_text("none")
    (tmp_path / "images" / "c.bmp").write_bytes(b"BM")
    told = score(pixels_checkpoint, tmp_path / "images", tmp_path / "told.csv", "--part-rows", 2)
    assert told["file"].to_list() == sorted(names)
    answers = dict(zip(names, predictions(service, "pixels"), strict=True))
    for row in told.to_dicts():
        same(row, answers[row["file"]])
    (reject,) = map(json.loads, (tmp_path / "told.csv.rejects.jsonl").read_text().splitlines())
    assert (reject["row"], reject["file"]) == (3, "c.bmp")
    assert "Expected the file to be a PNG, JPEG or WebP file" in reject["reason"]


def test_bad_rows_are_rejected_with_their_reason_and_the_others_answered(
    table_checkpoint: Path, service: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    good = "40,2500.5,Bern,true"
    lines = ["id,age,income,city,member", f"a,{good}", "b,old,1,Bern,true", "c,40,1,Bern", f"d,{good}", "e,40,1,Bern,"]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    given = (table_checkpoint, tmp_path / "rows.csv", tmp_path / "told.csv", "--ids", "id")
    line = refused(capsys, *given, "--bad-rows", "stop")
    assert "row 1, line 3: Expected column 'age' to be a number, but got the text 'old'" in line
    told = score(*given)
    assert told["id"].to_list() == ["a", "d"]
    assert told["row"].to_list() == [0, 3]
    (answer,) = predictions(service, "table", ROWS[:1])
    for row in told.to_dicts():
        same(row, answer)
    assert "3 rows are rejected" in capsys.readouterr().err
    rejects = [json.loads(each) for each in (tmp_path / "told.csv.rejects.jsonl").read_text().splitlines()]
    assert [(each["row"], each["line"], each["id"]) for each in rejects] == [(1, 3, "b"), (2, 4, None), (4, 6, "e")]
    assert "Expected column 'age' to be a number" in rejects[0]["reason"]
    assert "expected line 4 to have 5 values as the header has, but it has 4" in rejects[1]["reason"]
    assert "Expected column 'member' to have a value, but it is missing" in rejects[2]["reason"]


def test_a_mistake_is_told_before_a_model_is_loaded_and_nothing_is_written(
    numbers_checkpoint: Path, rows: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, output = write_numbers(tmp_path / "rows.csv", rows), tmp_path / "told.csv"
    before = set(tmp_path.iterdir())
    for arguments, said in (
        (("none.ckpt", source, output), "none.ckpt: no such file"),
        ((numbers_checkpoint, tmp_path / "none.csv", output), "none.csv: no such file or folder"),
        ((numbers_checkpoint, source, "told.xlsx"), "Expected the output to end in .csv, .parquet or .jsonl"),
        ((numbers_checkpoint, source, output), "Expected 5 columns of numbers, of shape [5] in row-major order"),
        ((numbers_checkpoint, source, output, "--ids", "kee"), "did you mean `key`?"),
        ((numbers_checkpoint, source, output, "--ray-workers", "2"), "Expected --ray beside --ray-workers"),
    ):
        assert said in refused(capsys, *arguments)
    assert set(tmp_path.iterdir()) == before


def test_options_that_are_none_are_told_by_the_parser(capsys: pytest.CaptureFixture[str]):
    for option, value in (("--samples", "many"), ("--threads", "0"), ("--part-rows", "0"), ("--separator", "::")):
        with pytest.raises(SystemExit) as caught:
            main(["a", "b", "c", option, value])
        assert caught.value.code == 2
        assert f"argument {option}: expected" in capsys.readouterr().err


def test_as_many_members_answer_as_are_asked_for(
    numbers_checkpoint: Path, service: httpx.Client, rows: np.ndarray, tmp_path: Path
):
    source = write_numbers(tmp_path / "rows.npz", rows)
    told = score(numbers_checkpoint, source, tmp_path / "told.jsonl", "--samples", 4)
    assert told["mc.samples"].to_list() == [4] * 31
    assert told["ood.flagged"].to_list() == [None] * 31
    assert told["ood.reason"][0] == "not_calibrated_for_these_samples"
    auto = score(numbers_checkpoint, source, tmp_path / "auto.parquet", "--samples", "auto")
    body = {"instances": rows.tolist(), "parameters": {"samples": "auto"}}
    answers = service.post("/v1/models/row/predict", json=body).json()["predictions"]
    assert auto["mc.samples"].to_list() == [answer["mc"]["samples"] for answer in answers]


def test_a_file_with_decimal_commas_is_read_as_one_with_points(table_checkpoint: Path, tmp_path: Path):
    (tmp_path / "points.csv").write_text("age,income,city,member\n40,2500.5,Bern,true\n")
    (tmp_path / "commas.csv").write_text("age;income;city;member\n40;2500,5;Bern;true\n40;2500.5;Bern;true\n")
    (one,) = score(table_checkpoint, tmp_path / "points.csv", tmp_path / "a.parquet").to_dicts()
    comma = ("--separator", ";", "--decimal", ",")
    (other,) = score(table_checkpoint, tmp_path / "commas.csv", tmp_path / "b.parquet", *comma).to_dicts()
    assert one["deterministic.probability"] == other["deterministic.probability"]
    (reject,) = map(json.loads, (tmp_path / "b.parquet.rejects.jsonl").read_text().splitlines())
    assert reject["reason"] == "Expected column 'income' to be a number with decimal ',', but got the text '2500.5'."
