"""Image files over `/v1`, through a real socket."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from dubio import models
from dubio.models import Predictor
from dubio.serving.settings import Settings
from dubio.serving.v1.schema import PredictResponse
from dubio.serving.wire.schema import Problem


@pytest.fixture(scope="module")
def predictor(pixels_checkpoint: Path) -> Predictor:
    return models.load(pixels_checkpoint)


@pytest.fixture(scope="module")
def client(
    serve: Callable, pixels_checkpoint: Path, checkpoint: Path, numbers_checkpoint: Path
) -> Iterator[httpx.Client]:
    given = (str(pixels_checkpoint), str(checkpoint), str(numbers_checkpoint))
    with serve(Settings(models=given, torch_threads=1)) as base, httpx.Client(base_url=base, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def test_a_file_gets_the_answer_of_its_pixels(client: httpx.Client, predictor: Predictor, pictures: np.ndarray) -> None:
    numbers = pictures.transpose(0, 3, 1, 2).astype(np.float32)
    instances = [
        {"b64": encode(pictures[0])}, numbers[1].tolist(), f"data:image/png;base64,{encode(pictures[2])}"
    ]  # fmt: skip
    response = client.post("/v1/models/pixels/predict", json={"instances": instances})
    answer = PredictResponse.model_validate_json(response.content, strict=True)
    expected = predictor.predict(numbers)
    for row, one in enumerate(answer.predictions):
        np.testing.assert_allclose(one.deterministic.probabilities, expected.probabilities[row], atol=1e-6)
        np.testing.assert_allclose(one.mc.std, expected.mc_std[row], atol=1e-5)
        assert one.ood.flagged is bool(expected.flagged[row])


def test_many_files_and_a_jpeg_are_read_aside(client: httpx.Client, pictures: np.ndarray) -> None:
    instances = [{"b64": encode(pictures[0], "JPEG")}] * 200
    response = client.post("/v1/predict", json={"instances": instances, "parameters": {"samples": "auto"}})
    assert response.status_code == 200
    predictions = response.json()["predictions"]
    assert len(predictions) == 200
    assert all(one == predictions[0] for one in predictions[1:64])


@pytest.mark.parametrize(
    ("model", "instance", "complaint"),
    [
        ("pixels", {"b64": "AAAA"}, "its first bytes are 00 00 00; convert it"),
        (
            "pixels",
            {"b64": encode(np.zeros((9, 8), np.uint8))},
            "8 pixels wide and 8 high, but it is 8 wide and 9 high",
        ),
        ("pixels", encode(np.zeros((8, 8), np.uint8)), "the string 'iVBOR"),
        ("bars", {"b64": encode(np.zeros((8, 8), np.uint8))}, "trained on values from 0 to 16, so send such numbers"),
        ("row", {"b64": encode(np.zeros((8, 8), np.uint8))}, "this model takes rows of numbers"),
    ],
)
def test_what_the_model_does_not_take_is_unprocessable(
    client: httpx.Client, model: str, instance: object, complaint: str
) -> None:
    response = client.post(f"/v1/models/{model}/predict", json={"instances": [instance]})
    assert response.status_code == 422
    assert complaint in Problem.model_validate_json(response.content).detail


def test_every_example_runs_the_one_with_a_file_too(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/models/{name}/predict"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert list(examples) == ["pixels", "pixels, image file", "bars", "row"]
    answers = [
        client.post(f"/v1/models/{name.split(',')[0]}/predict", json=example["value"])
        for name, example in examples.items()
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    (numbers,), (file,) = (answer.json()["predictions"] for answer in answers[:2])
    assert file["image"] == {"height": 8, "width": 8, "oriented": False, "resized": False}
    assert numbers == {**file, "image": None}
