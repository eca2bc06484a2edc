from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from starlette.testclient import TestClient

from dubio.serving.app import create_app
from dubio.serving.settings import Settings
from tests.training import coins


@pytest.fixture
def client(coin: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(models=("runs/coin/model.ckpt",), torch_threads=1)).asgi) as client:
        yield client


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_predictions_are_those_of_the_service_row_by_row(suffix: str, coin: Path, client: TestClient):
    content = [{**row, "a": row["a"] * 3} for row in coins.rows(40, 2)]  # some of them strangers
    content[7]["place"] = "elsewhere"
    unlabelled = [{name: row[name] for name in ("id", *coins.COLUMNS)} for row in content]
    path, output = coins.save(coin / "new.csv", unlabelled), f"out/told.{suffix}"
    coins.run("predict", "--data.path", path, "--data.ignore", "[]", "--ids", "[id]", "--output", output)
    read = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson}[suffix]
    told = read(output)
    assert told["row"].to_list() == list(range(40))
    assert told["id"].to_list() == [row["id"] for row in content]
    assert told["split"].to_list() == [None] * 40
    body = {"instances": [{name: row[name] for name in coins.COLUMNS} for row in content]}
    answers = client.post("/v1/predict", content=json.dumps(body)).json()["predictions"]
    assert told["ood.flagged"].to_list() == [answer["ood"]["flagged"] for answer in answers]
    assert any(told["ood.flagged"])
    for row, answer in zip(told.to_dicts(), answers, strict=True):
        for part in ("deterministic", "mc", "uncertainty", "ood"):
            for name, value in answer[part].items():
                values = value if isinstance(value, list) else [value]
                names = [f".{each}" for each in ("no", "yes")] if isinstance(value, list) else [""]
                for one, end in zip(values, names, strict=True):
                    given = row[f"{part}.{name}{end}"]
                    assert given == (pytest.approx(one, abs=1e-5) if isinstance(one, float) else one)


def test_a_mistake_is_told_before_anything_is_written(coin: Path, capsys: pytest.CaptureFixture[str]):
    assert "end in .csv, .parquet or .jsonl" in coins.fails(capsys, "predict", "--output", "told.xlsx")
    assert "did you mean" in coins.fails(capsys, "predict", "--ids", "[lable]")
    unknown = [{**row, "extra": 1} for row in coins.rows(3, 2)]
    line = coins.fails(capsys, "predict", "--data.path", coins.save(coin / "unknown.csv", unknown))
    assert "expected no column that the checkpoint does not have, but got 'extra'" in line
    line = coins.fails(capsys, "predict", "--ckpt_path", "last")
    assert "is not calibrated" in line
    assert not Path("runs/coin/predictions.csv").exists()
