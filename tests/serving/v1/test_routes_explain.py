"""Why an instance was flagged, over both protocols and through a real socket."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from dubio import models
from dubio.models import Predictor
from dubio.serving.settings import Settings
from dubio.serving.v1.schema import PredictResponse
from dubio.serving.v2.schema import InferResponse
from dubio.serving.wire.explanation import to_plain

ROW = {"age": 40, "income": 2500.5, "city": "Bern", "member": True}
KEYS = ["checkpoint", "scores", "squared_distance", "columns", "neighbours"]


@pytest.fixture(scope="module")
def explain_url(
    serve: Callable[[Settings], AbstractContextManager[str]],
    checkpoint: Path,
    second_checkpoint: Path,
    table_checkpoint: Path,
    text_checkpoint: Path,
) -> Iterator[str]:
    given = (
        f"bars={checkpoint}",
        f"table={table_checkpoint}",
        f"text={text_checkpoint}",
        f"both={checkpoint}+{second_checkpoint}",
    )
    with serve(Settings(models=given, torch_threads=1, max_rows=64)) as base:
        yield base


@pytest.fixture
def client(explain_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=explain_url, timeout=30) as client:
        yield client


def predict(client: httpx.Client, model: str, *instances: Any, **parameters: Any) -> list[dict[str, Any]]:
    """What is said in `ood` of each instance."""
    body = {"instances": list(instances), "parameters": parameters}
    response = client.post(f"/v1/models/{model}/predict", json=body)
    assert response.status_code == 200, response.text
    PredictResponse.model_validate_json(response.content, strict=True)
    return [each["ood"] for each in response.json()["predictions"]]


def infer(client: httpx.Client, model: str, body: dict[str, Any]) -> dict[str, Any]:
    """The outputs by name."""
    response = client.post(f"/v2/models/{model}/infer", json=body)
    assert response.status_code == 200, response.text
    return {each.name: each for each in InferResponse.model_validate_json(response.content).outputs}


@pytest.mark.parametrize("parameters", [{}, {"explain": False}, {"explain": None}])
def test_who_does_not_ask_gets_no_explanation(client: httpx.Client, parameters: dict[str, Any]):
    assert [set(each) for each in predict(client, "table", ROW, **parameters)] == [
        {"flagged", "p_value", "level", "reason"}
    ]


def test_the_column_that_was_shifted_comes_first(client: httpx.Client):
    [usual, old, rich] = predict(client, "table", ROW, {**ROW, "age": 2000}, {**ROW, "income": 1e6}, explain=True)
    assert (old["columns"][0]["name"], rich["columns"][0]["name"]) == ("age", "income")
    assert [each["flagged"] for each in (usual, old, rich)] == [False, True, True]
    for each in (usual, old, rich):
        assert sorted(column["name"] for column in each["columns"]) == ["age", "city", "income", "member"]
        total = sum(column["contribution"] for column in each["columns"])
        assert total == pytest.approx(each["squared_distance"], rel=1e-6)
        assert each["neighbours"] is None
    assert old["scores"]["input_mahalanobis"] == pytest.approx(1 / 301)
    assert usual["scores"]["input_mahalanobis"] > 0.05


def test_an_image_is_explained_by_the_nearest_of_training_and_their_pictures(
    client: httpx.Client, bars: np.ndarray, predictor: Predictor
):
    given = predict(client, "bars", *bars[:3].tolist(), explain=True)
    due = predictor.explain(bars[:3], predictor.predict(bars[:3])).explanations
    for one, other in zip(given, due, strict=True):
        assert [near["row"] for near in one["neighbours"]] == [near.row for near in other.neighbours]
        assert all(1000 <= near["row"] < 1200 for near in one["neighbours"])
        assert one["columns"] is None
    shown = [
        (near, mine)
        for each, own in zip(given, due, strict=True)
        for near, mine in zip(each["neighbours"], own.neighbours, strict=True)
        if near["thumbnail"]
    ]
    assert shown  # 5000 bytes are 78 of the 200 pictures
    assert any(near["thumbnail"] is None for each in given for near in each["neighbours"])
    for near, mine in shown:
        head, data = near["thumbnail"].split(",")
        assert head == "data:image/png;base64"
        np.testing.assert_array_equal(Image.open(io.BytesIO(base64.b64decode(data))), mine.thumbnail_CHW[0])


def test_a_text_is_explained_by_texts_as_the_model_reads_them(client: httpx.Client):
    [given] = predict(client, "text", "Where is my card?", explain=True)
    words = {"my", "card", "is", "lost", "where", "the", "money", "?", "über", "now"}
    assert all(set(near["text"].split()) <= words and near["text"] for near in given["neighbours"])
    distances = [near["distance"] for near in given["neighbours"]]
    assert distances == sorted(distances)


def test_of_an_ensemble_one_checkpoint_explains(client: httpx.Client, bars: np.ndarray):
    given = predict(client, "both", *bars[:20].tolist(), explain=True)
    assert {each["checkpoint"] for each in given} == {1, 2}
    assert all(each["scores"] and each["neighbours"] for each in given)


def test_where_no_promise_applies_nothing_is_explained(client: httpx.Client):
    [given] = predict(client, "table", ROW, explain=True, samples=4)
    assert given["reason"] == "not_calibrated_for_these_samples"
    assert [given[key] for key in KEYS] == [None] * 5


def test_over_tensorflow_servings_route_too(client: httpx.Client):
    body = {"instances": [{**ROW, "age": 2000}], "parameters": {"explain": True}}
    [given] = client.post("/v1/models/table:predict", json=body).json()["predictions"]
    assert given["ood"]["columns"][0]["name"] == "age"


@pytest.mark.parametrize("explain", ["true", 1, [], {}, 0.5, "x" * 10_000])
def test_what_is_neither_true_nor_false_is_refused(client: httpx.Client, explain: Any, bars: np.ndarray):
    body = {"instances": [ROW], "parameters": {"explain": explain}}
    response = client.post("/v1/models/table/predict", json=body)
    assert response.status_code == 422
    assert "Expected `parameters.explain` to be a valid boolean" in response.json()["detail"]
    assert len(response.text) < 1000
    tensor = {"name": "input", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": bars[:1].ravel().tolist()}
    response = client.post("/v2/models/bars/infer", json={"inputs": [tensor], "parameters": {"explain": explain}})
    assert response.status_code == 400
    assert "`parameters.explain`" in response.json()["error"]


def test_over_v2_an_explanation_is_a_tensor_of_json(client: httpx.Client, bars: np.ndarray, predictor: Predictor):
    tensor = {"name": "input", "shape": [3, 1, 8, 8], "datatype": "FP32", "data": bars[:3].ravel().tolist()}
    due = predictor.explain(bars[:3], predictor.predict(bars[:3])).explanations
    asked: list[dict[str, Any]] = [
        {"parameters": {"explain": True}},
        {"parameters": {"explain": True}, "outputs": [{"name": "label"}]},
        {"outputs": [{"name": "ood_explanation"}, {"name": "label"}]},
    ]
    for more, count in zip(asked, (13, 2, 2), strict=True):
        outputs = infer(client, "bars", {"inputs": [tensor], **more})
        assert len(outputs) == count
        given = outputs["ood_explanation"]
        assert (given.datatype, given.shape) == ("BYTES", [3])
        for text, explanation in zip(given.data, due, strict=True):
            plain = json.loads(text)
            assert list(plain) == KEYS
            assert plain["scores"] == pytest.approx(to_plain(explanation)["scores"], abs=2 / 301)
            assert [near["row"] for near in plain["neighbours"]] == [near.row for near in explanation.neighbours]
    assert "ood_explanation" not in infer(client, "bars", {"inputs": [tensor]})


def test_over_v2_contradictions_and_what_cannot_be_explained_are_refused(client: httpx.Client, bars: np.ndarray):
    tensor = {"name": "input", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": bars[:1].ravel().tolist()}
    named = {"inputs": [tensor], "outputs": [{"name": "ood_explanation"}]}
    for parameters, why in (
        ({"explain": False}, "where `parameters.explain` is false"),
        ({"samples": 4}, "not_calibrated_for_these_samples"),
        ({"explian": True}, "did you mean `explain`?"),
    ):
        response = client.post("/v2/models/bars/infer", json={**named, "parameters": parameters})
        assert response.status_code == 400
        assert why in response.json()["error"]
    answered = infer(client, "bars", {"inputs": [tensor], "parameters": {"samples": 4, "explain": True}})
    assert "ood_explanation" not in answered
    assert "ood_flag" not in answered


def test_the_card_says_what_is_kept(client: httpx.Client, checkpoint: Path):
    kept = {model: client.get(f"/v1/models/{model}").json()["training_examples_kept"] for model in ("bars", "table")}
    assert kept == {"bars": {"what": "thumbnails", "rows": 125, "bytes": 125 * 64}, "table": None}
    assert models.load(checkpoint).describe()["training_examples_kept"] == kept["bars"]
