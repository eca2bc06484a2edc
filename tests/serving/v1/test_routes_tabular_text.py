"""Rows of named columns and texts over `/v1`, through a real socket."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dubio import models
from dubio.serving.settings import Settings
from dubio.serving.v1.schema import PredictResponse

ROW = {"age": 40, "income": 2500.5, "city": "Bern", "member": True}
TEXT = "Where is my card?"
# ROW and TEXT as the networks see them, counted by hand: values, then categories, missing, unseen.
NUMBERS = [40, 2500.5, 0, 1, 0, 0, 0, 0, 1, 0]
TOKENS = [6, 4, 2, 3, 9, 0]


@pytest.fixture(scope="module")
def reader_url(
    serve: Callable[[Settings], AbstractContextManager[str]], table_checkpoint: Path, text_checkpoint: Path
) -> Iterator[str]:
    """A server with two models, `table` and `text`."""
    given = (f"table={table_checkpoint}", f"text={text_checkpoint}")
    with serve(Settings(models=given, torch_threads=1, max_rows=64, max_body_bytes=512 * 1024)) as base:
        yield base


@pytest.fixture
def client(reader_url: str) -> Iterator[httpx.Client]:
    """A client of that server; whatever a test sends, good requests are answered afterwards."""
    with httpx.Client(base_url=reader_url, timeout=30) as client:
        yield client
        assert predict(client, "table", ROW)["mc"]["std"]
        assert predict(client, "text", TEXT)["mc"]["std"]


def predict(client: httpx.Client, model: str, *instances: Any) -> dict[str, Any]:
    """The first prediction."""
    response = client.post(f"/v1/models/{model}/predict", json={"instances": list(instances)})
    assert response.status_code == 200, response.text
    PredictResponse.model_validate_json(response.content, strict=True)
    return response.json()["predictions"][0]


def refused(client: httpx.Client, model: str, instance: Any) -> str:
    """Why an instance, behind a good one, is refused."""
    good = ROW if model == "table" else TEXT
    response = client.post(f"/v1/models/{model}/predict", json={"instances": [good, instance]})
    assert response.status_code == 422, response.text
    assert "instances[1]" in response.json()["detail"]
    return response.json()["detail"]


@pytest.mark.parametrize(("model", "instance", "raw"), [("table", ROW, NUMBERS), ("text", TEXT, TOKENS)])
def test_answers_are_those_to_the_numbers_counted_by_hand(
    client: httpx.Client, table_checkpoint: Path, text_checkpoint: Path, model: str, instance: Any, raw: list[float]
) -> None:
    answer = predict(client, model, instance)
    expected = models.load({"table": table_checkpoint, "text": text_checkpoint}[model]).predict([raw])
    np.testing.assert_allclose(answer["deterministic"]["probabilities"], expected.probabilities[0], atol=1e-6)
    np.testing.assert_allclose(answer["mc"]["mean"], expected.mc_mean[0], atol=1e-5)
    np.testing.assert_allclose(answer["mc"]["std"], expected.mc_std[0], atol=1e-5)
    assert max(answer["mc"]["std"]) > 0
    assert answer["ood"]["flagged"] is bool(expected.flagged[0])


def test_what_a_row_means_is_in_its_names_not_in_their_order(client: httpx.Client) -> None:
    answer = predict(client, "table", dict(reversed(ROW.items())))
    assert answer["deterministic"] == predict(client, "table", ROW)["deterministic"]
    assert predict(client, "table", ROW | {"age": 60})["deterministic"] != answer["deterministic"]


@pytest.mark.parametrize("change", [{"age": 5000}, {"income": -1e9}, {"income": 1e38, "city": "Basel"}])
def test_values_far_from_those_of_training_are_flagged_as_out_of_range(
    client: httpx.Client, change: dict[str, Any]
) -> None:
    answer = predict(client, "table", ROW | change)
    assert (answer["ood"]["flagged"], answer["ood"]["reason"]) == (True, "out_of_range")


def test_a_category_that_training_never_had_is_a_number_of_its_own(
    client: httpx.Client, table_checkpoint: Path
) -> None:
    answer = predict(client, "table", ROW | {"city": "Basel"})
    expected = models.load(table_checkpoint).predict([[40, 2500.5, 0, 0, 0, 0, 1, 0, 1, 0]])
    np.testing.assert_allclose(answer["deterministic"]["probabilities"], expected.probabilities[0], atol=1e-6)
    assert answer["ood"]["reason"] == ("out_of_range" if expected.flagged[0] else None)


def test_missing_values_are_answered_where_training_had_holes(client: httpx.Client) -> None:
    assert predict(client, "table", ROW | {"income": None, "city": None})["ood"]["reason"] != "out_of_range"
    assert "missing" in refused(client, "table", ROW | {"age": None})


def test_words_that_training_never_had_are_one_token(client: httpx.Client, text_checkpoint: Path) -> None:
    answer = predict(client, "text", "zzz Qqq")
    expected = models.load(text_checkpoint).predict([[1, 1, 0, 0, 0, 0]])
    np.testing.assert_allclose(answer["deterministic"]["probabilities"], expected.probabilities[0], atol=1e-6)
    assert answer["ood"]["reason"] == ("out_of_range" if expected.flagged[0] else None)


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        ([40, 2500, "Bern", True], "object with a value for each column"),
        ("age=40", "object with a value for each column"),
        (None, "but got null"),
        ({}, "are absent; send them, and null for a value of 'income', 'city' that is missing"),
        (ROW | {"agee": 1}, "did you mean `age`?"),
        (ROW | {"age": "40"}, "got the text '40'; a number such as 40 is taken, without quotes or a unit"),
        (ROW | {"age": True}, "finite number, but got true"),
        (ROW | {"age": [40]}, "finite number, but got a list"),
        (ROW | {"age": 1e300}, "finite number, but got the number 1e+300"),
        (ROW | {"city": [1.5]}, "name of a category"),
        (ROW | {"member": ""}, "to have a value, but it is missing"),
        (ROW | {"city": {"b64": "AAAA"}}, "name of a category"),
        ({"b64": "AAAA"}, "unknown column, but got 'b64'"),
        ({"age\x00" * 9999: 1}, "unknown column"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_name(client: httpx.Client, instance: Any, words: str) -> None:
    detail = refused(client, "table", instance)
    assert words in detail
    assert len(detail) < 500


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        ("", "hold words"),
        (" \t\n", "hold words"),
        (7, "to be a text"),
        (None, "to be a text"),
        ([TEXT], "to be a text"),
        ({"text": TEXT}, "to be a text"),
        ("a" * 65_537, "at most 65536 characters"),
    ],
)
def test_texts_that_are_none_are_refused(client: httpx.Client, instance: Any, words: str) -> None:
    detail = refused(client, "text", instance)
    assert words in detail
    assert len(detail) < 500


@pytest.mark.parametrize(
    "text",
    ["\x00\x00 card", "\u202ecard\u202c", "ca\u0301rd " * 5000, "\U0001f600" * 60_000, "data:image/png;base64,AAAA"],
)
def test_odd_texts_are_answered(client: httpx.Client, text: str) -> None:
    assert len(predict(client, "text", text)["deterministic"]["probabilities"]) == 4


@pytest.mark.parametrize("body", [b'{"instances": ["\\ud800 card"]}', b'{"instances": ["\xff card"]}'])
def test_broken_unicode_is_no_json(client: httpx.Client, body: bytes) -> None:
    assert client.post("/v1/models/text/predict", content=body).status_code == 400


@pytest.mark.parametrize("model", ["table", "text"])
def test_too_many_and_none_are_refused(client: httpx.Client, model: str) -> None:
    good = ROW if model == "table" else TEXT
    path = f"/v1/models/{model}/predict"
    assert client.post(path, json={"instances": [good] * 65}).status_code == 413
    assert client.post(path, json={"instances": []}).status_code == 422
    assert client.post(path, json={"instances": good}).status_code == 422


def test_the_card_shows_columns_and_an_example_that_is_answered(client: httpx.Client) -> None:
    card = client.get("/v1/models/table").json()
    assert [column["name"] for column in card["input"]["columns"]] == list(ROW)
    assert card["input"]["columns"][1] | {"low": 0, "high": 9000, "missing": True} == card["input"]["columns"][1]
    assert card["input"]["columns"][2]["categories"] == ["Bern", "Köln"]
    predict(client, "table", card["example"])


def test_the_card_of_texts_counts_the_words_and_keeps_them(client: httpx.Client) -> None:
    response = client.get("/v1/models/text")
    card = response.json()
    assert card["input"]["tokenizer"] == {"kind": "word", "vocabulary": 12, "lowercase": True, "length": 6}
    assert "über" not in response.text.replace(card["example"], "")
    predict(client, "text", card["example"])


def test_the_examples_of_the_api_are_answered(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    body = paths["/v1/models/{name}/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["examples"]) == {"table", "text"}
    for name, example in body["examples"].items():
        assert client.post(f"/v1/models/{name}/predict", json=example["value"]).status_code == 200


def test_texts_that_grow_are_not_read_to_their_end(client: httpx.Client) -> None:
    """Half a kilobyte on the wire, and more than two million characters in the form that is read."""
    body = gzip.compress(json.dumps({"instances": ["\ufdfa" * 2**16] * 2}, ensure_ascii=False).encode(), 9)
    assert len(body) < 1000
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    long = client.post("/v1/models/text/predict", content=body, headers=headers)
    short = client.post("/v1/models/text/predict", json={"instances": ["\ufdfa" * 10] * 2})
    assert long.status_code == short.status_code == 200
    assert long.json()["predictions"] == short.json()["predictions"]


@pytest.mark.parametrize("place", [{"city": "MARKS"}, {"MARKS": 1}, {"age": "MARKS"}])
def test_piled_up_marks_are_no_work(client: httpx.Client, place: dict[str, Any]) -> None:
    marks = "a" + "\u0301\u0316" * 60_000
    row = {key.replace("MARKS", marks): marks if value == "MARKS" else value for key, value in {**ROW, **place}.items()}
    answer = client.post("/v1/models/table/predict", json={"instances": [row]})
    assert answer.status_code == (200 if "city" in place else 422)
    assert len(answer.content) < 5000
