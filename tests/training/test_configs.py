"""Every configuration says all it means, and goes the whole way: fit, file, service, test, and on."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits
from starlette.testclient import TestClient

from dubio.models import Predictor, load
from dubio.serving.app import create_app
from dubio.serving.settings import Settings
from dubio.training.cli.main import main
from dubio.training.errors import DataUnavailable

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
GOLDEN = Path(__file__).parent / "golden"
REWRITE = "DUBIO_REWRITE_GOLDEN"
QUICK = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--threads", "1"]
FEW = ["--trainer.limit_train_batches", "8", "--calibration.num_samples", "8"]

each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)


@each_config
def test_what_a_config_sets_is_what_it_set_before(config: Path, capsys: pytest.CaptureFixture[str]):
    """A default that changes in Dubio or Lightning shows here."""
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(config), "--print_config"])
    printed, golden = capsys.readouterr().out, GOLDEN / config.name
    if os.environ.get(REWRITE):
        golden.write_text(printed)
    assert golden.is_file(), f"{golden.name} is new; {REWRITE}=1 writes it"
    assert yaml.safe_load(printed) == yaml.safe_load(golden.read_text()), f"if that is meant, {REWRITE}=1 writes it"


def test_no_golden_file_outlives_its_config():
    assert [path.name for path in sorted(GOLDEN.iterdir())] == [path.name for path in CONFIGS]


def test_every_config_names_itself():
    for config in CONFIGS:
        text = config.read_text()
        assert yaml.safe_load(text)["name"] == config.stem
        assert f"--config {config.stem}" in text


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and data go into a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    # The errors themselves, so that data which are not here can be told from a defect.
    monkeypatch.setenv("DUBIO_TRACEBACK", "1")


def arrays(settings: dict[str, Any]) -> list[str]:
    table = load_breast_cancer()
    np.savez(settings["path"], x=table.data, y=table.target, classes=table.target_names)
    return []


def table(settings: dict[str, Any]) -> list[str]:
    """Numbers with holes, a column of names, and the labels."""
    tumours = load_breast_cancer()
    rows = pl.DataFrame(tumours.data, schema=[str(name) for name in tumours.feature_names])
    size = pl.when(pl.col("mean area") > 700).then(pl.lit("large")).otherwise(pl.lit("small")).alias("size")
    holes = pl.when(pl.int_range(pl.len()) % 29 > 0).then(pl.col("mean texture")).alias("mean texture")
    labels = pl.Series(settings["target"], tumours.target_names[tumours.target].tolist())
    rows.with_columns(size, holes, labels).write_csv(settings["path"])
    return []


def fashion(settings: dict[str, Any]) -> list[str]:
    """A small set in its format: ten patterns in noise."""
    generator = np.random.default_rng(0)
    patterns = generator.integers(0, 200, (10, 28, 28))
    for prefix, count in (("train", 1500), ("t10k", 200)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pixels = (patterns[labels] + generator.integers(0, 56, (count, 28, 28))).astype(np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            Path(f"{prefix}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return ["--data.root", ".", "--data.validation", "200", "--data.select", "200", "--data.calibration", "200"]


def texts(settings: dict[str, Any]) -> list[str]:
    """Requests about three topics, made of pieces."""
    words = {"weather": ["rain", "snow", "fog"], "music": ["jazz", "opera", "drums"], "food": ["soup", "rice", "cake"]}
    rows = [
        {settings["text"]: f"tell me number {number} of {words[label][number % 3]}", settings["label"]: label}
        for number in range(200)
        for label in words
    ]
    Path(settings["path"]).write_text("\n".join(map(json.dumps, rows)))
    return []


def questions(settings: dict[str, Any]) -> list[str]:
    """A small set in its format: three intents, and a question about none."""
    intents = ("book", "cancel", "pay")
    content = {
        part: [[f"{part} {intent} it {number}", intent] for intent in intents for number in range(100)]
        for part in ("train", "val", "test")
    }
    Path("data_full.json").write_text(json.dumps({**content, "oos_test": [["how tall is it", "oos"]]}))
    return ["--data.path", "data_full.json", "--data.validation", "100", "--data.select", "100"]


def folders(settings: dict[str, Any]) -> list[str]:
    """scikit-learn's digits as files."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:800], digits.target, strict=False)):
        home = Path(settings["path"], str(label))
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(home / f"{number}.png")
    return ["--data.size", "8", "--data.channels", "1"]


# Configurations whose data are the user's, or large: what stands in for them, and the arguments that say so.
STAND_INS = {
    "dubio.training.Arrays": arrays,
    "dubio.training.Table": table,
    "dubio.training.Text": texts,
    "dubio.training.CLINC150": questions,
    "dubio.training.FashionMNIST": fashion,
    "dubio.training.MNIST": fashion,
    "dubio.training.ImageFolder": folders,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*tokens outside the training rows are unknown")
@each_config
def test_a_config_goes_the_whole_way(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = yaml.safe_load(config.read_text())
    data = settings["data"]
    stand_in = STAND_INS.get(data["class_path"], lambda _: [])(data["init_args"])
    common = ["--config", str(config), *QUICK, *stand_in]
    try:
        main(["fit", *common, *FEW, "--trainer.max_epochs", "1"])
    except ValueError as error:
        missing = error if isinstance(error, DataUnavailable) else error.__cause__  # the parser wraps it
        if not isinstance(missing, DataUnavailable):
            raise
        pytest.skip(str(missing))
    run = tmp_path / "runs" / config.stem
    path = run / "model.ckpt"
    assert "dubio" in torch.load(path, weights_only=True)

    predictor = load(path)
    assert predictor.network_spec.class_path == settings["model"]["init_args"]["network"]["class_path"]
    assert predictor.committee.num_samples == 8
    _is_served(path, predictor)

    capsys.readouterr()
    main(["test", *common, "--ckpt_path", str(path)])
    assert "test_accuracy" in capsys.readouterr().out

    last = run / "checkpoints" / "last.ckpt"
    before = torch.load(last, weights_only=True)
    assert before["epoch"] == 0
    main(["fit", *common, *FEW, "--trainer.max_epochs", "2", "--ckpt_path", str(last)])
    after = torch.load(last, weights_only=True)
    assert after["epoch"] == 1
    assert after["global_step"] == 2 * before["global_step"] > 0
    assert load(path).detector is not None


def _is_served(path: Path, predictor: Predictor) -> None:
    """The service gives the predictor's own answer."""
    reader = predictor.input.reader
    if reader is None:
        instance = np.full(predictor.input.shape, (predictor.input.low + predictor.input.high) / 2).tolist()
        raw = np.array([instance], dtype=np.float32)
    else:
        instance = reader.example()
        raw = reader.read([instance])
    expected = predictor.predict(raw)
    with TestClient(create_app(Settings(models=(str(path),), torch_threads=1)).asgi, "http://localhost") as client:
        answer = client.post("/v1/predict", json={"instances": [instance]})
    assert answer.status_code == 200, answer.text
    (served,) = answer.json()["predictions"]
    assert served["mc"]["mean"] == pytest.approx(expected.mc_mean[0].tolist(), abs=1e-5)
    assert served["mc"]["std"] == pytest.approx(expected.mc_std[0].tolist(), abs=1e-5)
    assert max(served["mc"]["std"]) > 0
    assert served["ood"]["flagged"] == bool(expected.flagged[0])
