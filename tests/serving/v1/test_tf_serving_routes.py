"""The predict call of TensorFlow Serving and KServe V1, through a real socket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.kinds import INSTANCES, NUMBERS, ROWS, TEXTS, predictions


def ask(client: httpx.Client, model: str, status: int = 200, **request: Any) -> Any:
    """The predictions, or the error's text."""
    response = client.post(f"/v1/models/{model}:predict", json=request)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert list(answer) == (["predictions"] if status == 200 else ["error"])
    return next(iter(answer.values()))


@pytest.mark.parametrize("model", ["row", "text", "pixels"])
def test_the_only_input_may_be_named(kinds: httpx.Client, model: str) -> None:
    expected = predictions(kinds, model)
    assert ask(kinds, model, instances=[{"input": each} for each in INSTANCES[model]]) == expected
    assert ask(kinds, model, inputs={"input": INSTANCES[model]}) == expected


def test_a_table_by_column(kinds: httpx.Client) -> None:
    expected = predictions(kinds, "table")
    columns = {name: [row[name] for row in ROWS] for name in reversed(ROWS[0])}
    assert ask(kinds, "table", inputs=columns) == expected
    assert ask(kinds, "table", inputs={name: [[value] for value in values] for name, values in columns.items()}) == (
        expected
    )


def test_what_is_not_ours_is_left_alone_and_what_is_counts(kinds: httpx.Client) -> None:
    foreign = {"signature_name": "serving_default", "model_name": "x", "parameters": {"temperature": 0.3}}
    assert ask(kinds, "row", instances=NUMBERS, **foreign) == predictions(kinds, "row")
    [first] = ask(kinds, "row", instances=NUMBERS[:1], parameters={"samples": 4})
    assert first["mc"]["samples"] == 4
    assert "did you mean `samples`?" in ask(kinds, "row", 400, instances=NUMBERS, parameters={"sample": 4})
    assert "did you mean `instances`?" in ask(kinds, "row", 400, instance=NUMBERS)


@pytest.mark.parametrize(
    ("model", "request_", "complaint"),
    [
        ("row", {}, "Expected `instances` or `inputs` in the request, but it has neither"),
        ("row", {"instances": NUMBERS, "inputs": NUMBERS}, "but it has both"),
        ("row", {"instances": []}, "`instances` to have at least 1 item"),
        ("row", {"inputs": []}, "at least one instance"),
        ("row", {"inputs": {}}, "as `input`, but got an object with other keys"),
        ("row", {"inputs": {"x": NUMBERS}}, "as `input`, but got an object with other keys"),
        (
            "row",
            {"inputs": {"input": 3}},
            "'input' of `inputs` to be a list of values, one a row, but got the",
        ),
        ("row", {"inputs": 3}, "`inputs` to be a valid list"),
        ("row", {"instances": [[1, 2, 3]]}, "instances[0] to have shape [5], but got shape [3]"),
        ("row", {"instances": NUMBERS * 30}, "at most 64 instances"),
        ("table", {"inputs": {}}, "to hold the table's columns, but it is empty"),
        ("table", {"inputs": {"age": []}}, "'age' of `inputs` to be a list of values, one a row, but got a list of 0"),
        ("table", {"inputs": {"age": [1, 2], "city": ["Bern"]}}, "'age' has 2 values and 'city' has 1"),
        (
            "table",
            {"inputs": {"age": [1]}},
            "instances[0] to have every column, but 'income', 'city', 'member'",
        ),
        ("table", {"inputs": {"age": [[1, 2]]}}, "to have every column"),
        ("table", {"instances": [{**ROWS[0], "age": "old"}]}, "instances[0]['age'] to be a finite number"),
        ("text", {"inputs": {"input": [""]}}, "Expected instances[0] to hold words"),
        ("text", {"instances": [{"text": TEXTS[0]}]}, "Expected instances[0] to be a text"),
    ],
)
def test_refusals_have_the_formats_form(kinds: httpx.Client, model: str, request_: dict, complaint: str) -> None:
    status = 413 if complaint == "at most 64 instances" else 400
    assert complaint in ask(kinds, model, status, **request_)


def test_the_way_there_is_refused_in_the_same_form(
    kinds: httpx.Client, serve: Callable, settings: Callable, numbers_checkpoint: Path
) -> None:
    assert "but got 'nothing'; loaded: row, table, text, pixels" in ask(kinds, "nothing", 404, instances=NUMBERS)
    assert kinds.post("/v1/models/row/versions/7:predict", json={"instances": NUMBERS}).status_code == 404
    assert "Expected the body to be JSON" in kinds.post("/v1/models/row:predict", content=b"{").json()["error"]
    keyed = settings(models=(str(numbers_checkpoint),), api_keys="infer:" + "k" * 20)
    with serve(keyed) as base:
        refused = httpx.post(f"{base}/v1/models/row:predict", json={"instances": NUMBERS})
        assert refused.status_code == 401
        assert "Expected an API key" in refused.json()["error"]
        header = {"X-API-Key": "k" * 20}
        assert httpx.post(f"{base}/v1/models/row:predict", json={"instances": NUMBERS}, headers=header).is_success


def test_a_models_description_says_that_it_is_ready(kinds: httpx.Client) -> None:
    card = kinds.get("/v1/models/row").json()
    assert (card["name"], card["version"], card["ready"]) == ("row", "1", True)
    [status] = card["model_version_status"]
    assert status == {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def test_it_is_counted_as_any_prediction(kinds: httpx.Client) -> None:
    def served() -> float:
        lines = kinds.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("dubio_mutual_information_nats_count"))

    before = served()
    ask(kinds, "text", instances=TEXTS)
    assert served() == before + 3
    assert 'route="/v1/models/{name}:predict"' in kinds.get("/metrics").text
