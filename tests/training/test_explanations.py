"""What calibration keeps to explain flags, and what it refuses to keep."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dubio.models import MLP, NetworkSpec, TextCNN, load
from dubio.training import CalibrationSettings, Digits, Text, calibrate
from dubio.training.errors import TrainingError
from dubio.uncertainty import Outputs
from tests import table

ARGUMENTS = {"in_features": 64, "widths": [16], "num_classes": 10, "rates": [0.3]}
SPEC = NetworkSpec(class_path="dubio.models.MLP", init_args=ARGUMENTS)
SCORES = ("mutual_information", "neighbours", "input_mahalanobis")
QUICK = CalibrationSettings(num_samples=4, stages=(), bank=60, tune_rates=(1.0,), scores=SCORES)


@pytest.fixture(scope="module")
def network() -> MLP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP(**ARGUMENTS).eval().requires_grad_(False)


def test_rows_are_numbered_as_in_the_source_and_pictures_kept_within_the_budget(network: MLP, digits: Digits):
    predictor = calibrate(network, SPEC, digits, replace(QUICK, examples=1000), measure_seconds=0.1)
    record, train = predictor.explaining, digits.raw("train")[0]
    assert record is not None
    assert len(record.rows) == 60
    whole = digits.load().whole().x
    assert record.examples.shape == (15, 1, 8, 8)  # of 64 bytes each
    for row, picture in zip(record.rows.tolist(), record.examples, strict=False):
        np.testing.assert_allclose(picture, whole[row] / 16 * 255, atol=0.5)
    kept = predictor.detector.scores[1].bank_NF
    features = predictor.deterministic(torch.from_numpy(whole[record.rows.numpy()].astype(np.float32))).features()
    np.testing.assert_allclose(kept, torch.nn.functional.normalize(features.double()), atol=1e-6)
    explained = predictor.explain(train[:40], predictor.predict(train[:40])).explanations
    assert all(len(each.neighbours) == 5 for each in explained)
    # The calibration rows themselves have the p-values of ranks.
    held_out = digits.raw("calibration")[0]
    alone = predictor.explain(held_out, predictor.predict(held_out)).explanations
    for name in alone[0].scores:
        assert np.mean([each.scores[name] for each in alone]) == pytest.approx(0.5, abs=0.05)


def test_nothing_is_kept_by_default(network: MLP, digits: Digits):
    predictor = calibrate(network, SPEC, digits, QUICK, measure_seconds=0.1)
    assert predictor.explaining is not None
    assert predictor.explaining.examples is None
    assert predictor.describe()["training_examples_kept"] is None


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"examples": -1}, "a number of bytes, but got -1"),
        ({"examples": 63}, "at least 64 bytes, which one example takes, but got 63"),
        ({"examples": 100, "scores": ("energy",)}, r"neighbours among `calibration\.scores`.*energy"),
    ],
)
def test_what_cannot_be_kept_is_refused(network: MLP, digits: Digits, settings: dict[str, object], why: str):
    with pytest.raises(TrainingError, match=why):
        calibrate(network, SPEC, digits, replace(QUICK, **settings), measure_seconds=0.1)


def test_a_table_keeps_no_rows_and_names_the_shifted_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    refused = table.refused(capsys, tmp_path, "--calibration.examples", "1000")
    assert "images of 1 or 3 channels, or texts" in refused
    predictor = load(table.fit(tmp_path) / "model.ckpt")
    usual = {"a": 0.0, "b": 0.0, "c": 0.0}
    rows = [usual, *({**usual, name: 40.0} for name in "abc")]
    explained = predictor.explain(rows, predictor.predict(rows)).explanations
    assert [each.columns[0].name for each in explained[1:]] == ["a", "b", "c"]
    score = next(each for each in predictor.detector.scores if each.name == "input_mahalanobis")
    distances = score.score(Outputs(predictor.deterministic(rows), torch.zeros(0, 4, 2)))
    for each, distance in zip(explained, distances.tolist(), strict=True):
        assert each.squared_distance == pytest.approx(distance, rel=1e-4)
        assert sum(column.contribution for column in each.columns) == pytest.approx(distance, rel=1e-4)
        assert each.neighbours is None


@pytest.mark.filterwarnings("ignore:.*of the tokens outside the training rows are unknown")
def test_texts_are_kept_as_they_were_read(tmp_path: Path):
    path, words = tmp_path / "mine.jsonl", {"food": ["bread", "soup", "rice"], "weather": ["rain", "snow", "fog"]}
    rows = [
        {"text": f"Tell me, number {number}, of {of[number % 3]}", "label": label}
        for number in range(150)
        for label, of in words.items()
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    data = Text(str(path))
    arguments = {"vocabulary": len(data.input.tokenizer.vocabulary), "features": 8, "width": 8, "num_classes": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = TextCNN(**arguments).eval().requires_grad_(False)
    spec = NetworkSpec(class_path="dubio.models.TextCNN", init_args=arguments)
    settings = replace(QUICK, examples=10**6, alpha=0.2, delta=0.2)
    predictor = calibrate(network, spec, data, settings, measure_seconds=0.1)
    given = predictor.explain("Tell me of rain", predictor.predict("Tell me of rain")).explanations[0].neighbours
    assert len(given) == 5
    for near in given:
        said = rows[near.row]["text"].lower().replace(",", " ,").split()
        assert [one == other or one == "[UNK]" for one, other in zip(near.text.split(), said, strict=True)] == [
            True
        ] * 8
