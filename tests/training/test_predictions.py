from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image
from starlette.testclient import TestClient

from dubio.models import MLP, NetworkSpec, Prediction, Predictor, load
from dubio.models.checkpoint.data_record import DataRecord
from dubio.serving.app import create_app
from dubio.serving.settings import Settings
from dubio.training import Synthetic, Text, TrainingError, predictions
from dubio.training.cli.main import main
from tests.training import coins


@pytest.fixture
def client(coin: Path) -> Iterator[TestClient]:
    with TestClient(
        create_app(Settings(models=("runs/coin/model.ckpt",), torch_threads=1)).asgi, "http://localhost"
    ) as client:
        yield client


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_predictions_are_those_of_the_service_row_by_row(suffix: str, coin: Path, client: TestClient):
    content = [{**row, "a": row["a"] * 3} for row in coins.rows(40, 2)]  # some of them strangers
    content[7]["place"] = "elsewhere"
    unlabelled = [{name: row[name] for name in ("id", *coins.COLUMNS)} for row in content]
    path, output = coins.save(coin / "new.csv", unlabelled), f"out/told.{suffix}"
    coins.run("predict", "--data.path", path, "--ids", "[id]", "--output", output)
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
        assert row["decision.accepted"] == answer["decision"]["accepted"]
        assert json.loads(row["label_set.labels"]) == answer["label_set"]["labels"]


def test_a_mistake_is_told_before_anything_is_written(coin: Path, capsys: pytest.CaptureFixture[str]):
    assert "end in .csv, .parquet or .jsonl" in coins.fails(capsys, "predict", "--output", "told.xlsx")
    assert "did you mean" in coins.fails(capsys, "predict", "--ids", "[lable]")
    named = [{"mc.mean": 1, **row} for row in coins.rows(3, 2)]
    path = coins.save(coin / "named.csv", named)
    rows = coins.save(coin / "rows.csv", [{"row": 1, **row} for row in coins.rows(3, 2)])
    line = coins.fails(capsys, "predict", "--data.path", rows, "--ids", "[row]")
    assert "but got 'row': answers have `row`, the row's number in the file" in line
    assert "but got 'mc.mean': answers have" in coins.fails(
        capsys, "predict", "--data.path", path, "--ids", "[mc.mean]"
    )
    unknown = [{**row, "extra": 1} for row in coins.rows(3, 2)]
    line = coins.fails(capsys, "predict", "--data.path", coins.save(coin / "unknown.csv", unknown))
    assert "expected no column that the checkpoint does not have, but got 'extra'" in line
    line = coins.fails(capsys, "predict", "--ckpt_path", "last")
    assert "is not calibrated" in line
    assert not Path("runs/coin/predictions.csv").exists()


def quick(folder: Path, data: dict[str, object], **arguments: object) -> Path:
    """A fit of a moment."""
    content = {
        "name": "quick",
        "runs": str(folder / "runs"),
        "model": {
            "class_path": "dubio.training.Classifier",
            "init_args": {"network": {"class_path": "dubio.models.MLP", "init_args": arguments}},
        },
        "data": data,
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False, "logger": False},
        "calibration": {"num_samples": 4, "alpha": 0.2, "k": 5},
    }
    path = folder / "quick.yaml"
    path.write_text(yaml.safe_dump(content))
    main(["fit", "--config", str(path)])
    return path


def same(told: pl.DataFrame, answer: Prediction, classes: tuple[str, ...]) -> None:
    for field, values in (("deterministic.probabilities", answer.probabilities), ("mc.mean", answer.mc_mean)):
        np.testing.assert_allclose(told.select(f"{field}.{name}" for name in classes).to_numpy(), values, atol=1e-5)
    np.testing.assert_allclose(told["ood.p_value"].to_numpy(), answer.p_value)
    assert told["ood.reason"].to_list() == answer.reasons


def test_arrays_need_no_labels_and_carry_their_ids(tmp_path: Path):
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "fit.npz", x=draw.normal(size=(200, 3)), y=np.arange(200) % 2, classes=np.array(["a", "b"]))
    data = {"class_path": "dubio.training.Arrays", "init_args": {"path": str(tmp_path / "fit.npz")}}
    config = quick(tmp_path, data, widths=[8], rates=[0.5])
    x = draw.normal(size=(5, 3))
    np.savez(tmp_path / "new.npz", x=x, key=np.array(["p", "q", "r", "s", "t"]))
    main(["predict", "--config", str(config), "--data.path", str(tmp_path / "new.npz"), "--ids", "[key]"])
    told = pl.read_csv(tmp_path / "runs" / "quick" / "predictions.csv")
    assert told["key"].to_list() == ["p", "q", "r", "s", "t"]
    same(told, load(tmp_path / "runs" / "quick" / "model.ckpt").predict(x), ("a", "b"))


def test_images_are_answered_by_file_whatever_their_folders(tmp_path: Path):
    draw = np.random.default_rng(0)

    def image(path: Path) -> np.ndarray:
        pixels = draw.integers(0, 256, (8, 8), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return pixels

    for label in ("a", "b"):
        for number in range(80):
            image(tmp_path / "fit" / label / f"{number}.png")
    data = {"class_path": "dubio.training.ImageFolder", "init_args": {"path": str(tmp_path / "fit"), "channels": 1}}
    config = quick(tmp_path, data, widths=[8], rates=[0.5])
    pixels = [image(tmp_path / "new" / name) for name in ("deep/down/1.png", "up.png")]
    main(["predict", "--config", str(config), "--data.path", str(tmp_path / "new")])
    told = pl.read_csv(tmp_path / "runs" / "quick" / "predictions.csv")
    assert told["file"].to_list() == ["deep/down/1.png", "up.png"]
    same(told, load(tmp_path / "runs" / "quick" / "model.ckpt").predict(np.stack(pixels)[:, None]), ("a", "b"))


@pytest.mark.filterwarnings("ignore:.*tokens outside the training rows are unknown")
def test_texts_need_no_labels_and_carry_their_ids(tmp_path: Path):
    rows = [{"text": f"{word} number {count}", "label": word} for count in range(100) for word in ("alpha", "beta")]
    (tmp_path / "fit.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fit = Text(str(tmp_path / "fit.jsonl"), length=6)
    texts = ["beta alpha", "gamma", "number 7"]
    new = [{"key": number, "text": text, "more": [number, {"a": "b"}]} for number, text in enumerate(texts, start=7)]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, new)))
    data = Text(str(tmp_path / "new.jsonl"), length=6)
    data.ids = ("key", "more")
    data.follow(fit.record, "predict")
    assert data.load().ids["key"] == [7, 8, 9]
    assert data.load().ids["more"][0] == '[7, {"a": "b"}]'
    assert np.array_equal(data.raw("test")[0], fit.input.reader.read(texts))


def test_what_has_no_columns_carries_none():
    data = Synthetic(rows=300)
    record, data.ids = data.record, ("key",)
    data.follow(record, "predict")
    with pytest.raises(TrainingError, match="synthetic moons has none beside its inputs"):
        predictions.predict(quick_predictor(record), data)


def quick_predictor(record: DataRecord) -> Predictor:
    network = MLP(in_features=2, widths=[32], num_classes=2, rates=[0.5]).eval()
    spec = NetworkSpec(class_path="dubio.models.MLP", init_args={})
    return Predictor.build(network, spec, record.input, tuple(record.classes), num_samples=8, strategy="loop")
