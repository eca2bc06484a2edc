"""`/v1` through a real socket."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dubio import models
from dubio.models import Predictor
from dubio.serving.v1.schema import PredictResponse
from dubio.serving.wire.schema import Problem

PREDICT = "/v1/models/bars/predict"
BAR = np.zeros((8, 8))
BAR[:, 0:2] = 12
GOOD = {"instances": [BAR.tolist()]}


@pytest.fixture(autouse=True)
def still_well(client: httpx.Client) -> Iterator[None]:
    """Whatever a test sends, the next good request is answered."""
    yield
    answer = client.post(PREDICT, json=GOOD)
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["deterministic"]["label"] == "class-0"


def problem(response: httpx.Response, status: int) -> str:
    """The problem's detail, once its form is checked."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    parsed = Problem.model_validate_json(response.content)
    assert parsed.status == status
    assert parsed.request_id == response.headers["x-request-id"]
    return parsed.detail


def test_served_numbers_are_the_predictors(client: httpx.Client, predictor: Predictor, bars: np.ndarray) -> None:
    response = client.post(PREDICT, json={"id": "r-1", "instances": bars[:5].tolist()})
    answer = PredictResponse.model_validate_json(response.content, strict=True)
    expected = predictor.predict(bars[:5])
    assert (answer.id, answer.model.name) == ("r-1", "bars")
    for row, one in enumerate(answer.predictions):
        np.testing.assert_allclose(one.deterministic.probabilities, expected.probabilities[row], atol=1e-6)
        np.testing.assert_allclose(one.mc.mean, expected.mc_mean[row], atol=1e-5)
        np.testing.assert_allclose(one.mc.std, expected.mc_std[row], atol=1e-5)
        assert max(one.mc.std) > 0
        assert one.ood.flagged is bool(expected.flagged[row])


def test_the_default_model_is_the_first(client: httpx.Client) -> None:
    assert client.post("/v1/predict", json=GOOD).json() == client.post(PREDICT, json=GOOD).json()


def test_fewer_samples_carry_no_flag(client: httpx.Client) -> None:
    one = client.post(PREDICT, json={**GOOD, "parameters": {"samples": 4}}).json()["predictions"][0]
    assert one["mc"]["samples"] == 4
    assert one["ood"] == {
        "flagged": None, "p_value": None, "level": None, "reason": "not_calibrated_for_these_samples"
    }  # fmt: skip
    assert one["label_set"] == {"labels": None, "coverage": 0.95, "reason": "not_calibrated_for_these_samples"}
    none = {"accepted": None, "confidence": 0.95, "reason": "not_calibrated_for_these_samples"}
    assert one["decision"] == {**none, "risk": 0.02, "others": [{**none, "risk": 0.1}]}


def test_as_many_members_as_it_takes_keep_the_flag(
    client: httpx.Client, predictor: Predictor, bars: np.ndarray
) -> None:
    rows = np.concatenate([bars[:20], 16 - bars[:5], bars[:5] * 3])
    response = client.post(PREDICT, json={"instances": rows.tolist(), "parameters": {"samples": "auto"}})
    answer = PredictResponse.model_validate_json(response.content, strict=True)
    expected = predictor.predict(rows, samples="auto")
    assert [one.mc.samples for one in answer.predictions] == expected.samples.tolist()
    assert {one.mc.samples for one in answer.predictions} > {4}
    assert [one.ood.flagged for one in answer.predictions] == expected.flagged.tolist()
    assert 5 <= expected.flagged.sum() < 20
    for row, one in enumerate(answer.predictions):
        np.testing.assert_allclose(one.mc.mean, expected.mc_mean[row], atol=1e-5)
        np.testing.assert_allclose(one.mc.std, expected.mc_std[row], atol=1e-5)
        assert one.ood.level == expected.level


@pytest.mark.parametrize("value", [1e3, 1e10, 1e30, 3e38, -3e38])
def test_absurd_but_finite_inputs_are_flagged_or_refused(client: httpx.Client, value: float) -> None:
    response = client.post(PREDICT, json={"id": "r", "instances": [[value] * 64]})
    if response.status_code == 200:
        (answer,) = response.json()["predictions"]
        assert answer["ood"]["flagged"] is True
        assert answer["decision"]["accepted"] is False
        numbers = {name: answer[name] for name in ("deterministic", "mc", "uncertainty", "ood")}
        assert None not in flat(numbers)  # as which JSON would write NaN and infinity
    else:
        assert "overflow" in problem(response, 422)


def flat(value: Any) -> list[Any]:
    """Every value in a tree of them."""
    if isinstance(value, dict | list):
        return [leaf for each in (value.values() if isinstance(value, dict) else value) for leaf in flat(each)]
    return [value]


def _nest(request: dict) -> str:
    """The request with a list a thousand deep for "DEEP": as deep as the parser lets through."""
    return json.dumps(request).replace('"DEEP"', "[" * 1000 + "]" * 1000)


HOSTILE = {
    "no json": (b"{", 400, "Expected the body to be JSON"),
    "empty": (b"", 400, "it is empty; send an object"),
    "deep": (b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "depth limit"),
    "NaN": (b'{"instances":[[NaN]]}', 400, "or send null for those of a table"),
    "1e400": (b'{"instances":[[1e400]]}', 400, "infinity"),
    "float32 overflow": (json.dumps({"instances": [[1e39] * 64]}), 422, "row 0 holds 1e+39 at position 0"),
    "shape": (b'{"instances":[[1,2,3]]}', 422, "shape [1, 8, 8], [8, 8] or [64], but got shape [3]"),
    "ragged": (b'{"instances":[[[1,2],[3]]]}', 422, "rectangular"),
    "strings": (json.dumps({"instances": [["a"] * 64]}), 422, "the string 'a'"),
    "null": (json.dumps({"instances": [[None] * 64]}), 422, "null"),
    "no rows": (b'{"instances":[]}', 422, "`instances` to have at least 1 item"),
    "too many rows": (json.dumps({"instances": [[0] * 64] * 65}), 413, "at most 64 instances, but got 65"),
    "samples": (json.dumps({**GOOD, "parameters": {"samples": 10**9}}), 422, "in [2, 16]"),
    "deep samples": (
        _nest({**GOOD, "parameters": {"samples": "DEEP"}}),
        422,
        "a valid integer or 'auto', but got a list of 1",
    ),
    "deep id": (_nest({**GOOD, "id": "DEEP"}), 422, "`id` to be a valid string"),
    "deep instance": (_nest({"instances": "DEEP"}), 422, "nests more than 8 lists"),
    "unknown key": (json.dumps({**GOOD, "parameter": {}}), 422, "did you mean `parameters`?"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_bodies(client: httpx.Client, case: str) -> None:
    body, status, complaint = HOSTILE[case]
    assert complaint in problem(client.post(PREDICT, content=body), status)


def test_other_encodings_are_named(client: httpx.Client) -> None:
    response = client.post(PREDICT, content=b"\x1f\x8b", headers={"Content-Encoding": "br"})
    assert "Content-Encoding is 'br'" in problem(response, 415)


def test_compressed_bodies(client: httpx.Client) -> None:
    plain = client.post(PREDICT, json=GOOD).json()
    packed = gzip.compress(json.dumps(GOOD).encode())
    assert client.post(PREDICT, content=packed, headers={"Content-Encoding": "gzip"}).json() == plain
    damaged = client.post(PREDICT, content=packed[:-1], headers={"Content-Encoding": "gzip"})
    assert "ends too early" in problem(damaged, 422)


def test_a_body_too_large_by_its_declared_length(client: httpx.Client) -> None:
    assert "at most 262144 bytes" in problem(client.post(PREDICT, content=b" " * 3_000_000), 413)


def test_a_body_too_large_without_declared_length(client: httpx.Client) -> None:
    chunks = (b" " * 10_000 for _ in range(300))
    assert "at most 262144 bytes" in problem(client.post(PREDICT, content=chunks), 413)


def test_a_huge_declared_length_is_refused_before_the_body_comes(url: str) -> None:
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port), timeout=10) as raw:
        raw.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**15}\r\n\r\n".encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("name", ["nobody", "bar", "..%2f..%2fetc%2fpasswd", "%00", "a" * 5000, "bars%0d%0aX: y"])
def test_unknown_models(client: httpx.Client, name: str) -> None:
    assert len(problem(client.post(f"/v1/models/{name}/predict", json=GOOD), 404)) < 500
    assert len(problem(client.get(f"/v1/models/{name}"), 404)) < 500


def test_an_unknown_model_is_told_the_nearest(client: httpx.Client) -> None:
    assert "did you mean `bars`?" in problem(client.post("/v1/models/bar/predict", json=GOOD), 404)


def test_wrong_method_and_path(client: httpx.Client) -> None:
    response = client.get(PREDICT)
    assert "Expected POST" in problem(response, 405)
    assert response.headers["allow"] == "POST"
    problem(client.delete("/v1/models"), 405)
    problem(client.post("/v1/predict/", json=GOOD), 404)
    problem(client.get("/v1"), 404)


def test_every_one_of_many_gets_its_own_answer(url: str, predictor: Predictor, bars: np.ndarray) -> None:
    expected = predictor.predict(bars[:50])

    def ask(row: int) -> dict:
        with httpx.Client(base_url=url, timeout=60) as own:
            return own.post(PREDICT, json={"id": str(row), "instances": [bars[row].tolist()]}).json()

    with ThreadPoolExecutor(50) as pool:
        for row, answer in enumerate(pool.map(ask, range(50))):
            assert answer["id"] == str(row)
            one = answer["predictions"][0]
            np.testing.assert_allclose(one["mc"]["mean"], expected.mc_mean[row], atol=1e-5)
            np.testing.assert_allclose(one["deterministic"]["probabilities"], expected.probabilities[row], atol=1e-6)


def test_what_is_loaded(client: httpx.Client, predictor: Predictor) -> None:
    listed = client.get("/v1/models").json()["models"]
    assert [model["name"] for model in listed] == ["bars", "row"]
    card = client.get("/v1/models/bars").json()
    example = card.pop("example")
    assert (example, card.pop("example_source")) == predictor.example
    assert card.pop("ready") is True
    assert [status["version"] for status in card.pop("model_version_status")] == ["1"]
    assert card == listed[0]
    expected = {"name": "bars", "version": "1", **json.loads(json.dumps(predictor.describe()))}
    # Measured when a model loads, so that two loads may differ.
    assert card["committee"].pop("strategy")
    expected["committee"].pop("strategy")
    assert card == expected
    assert client.post(PREDICT, json={"instances": [example]}).status_code == 200


def test_two_models_answer_for_themselves(client: httpx.Client, numbers_checkpoint: Path) -> None:
    x = [[0.5, -1, 2, 0, 1]]
    answer = client.post("/v1/models/row/predict", json={"instances": x}).json()
    expected = models.load(numbers_checkpoint).predict(np.array(x, dtype=np.float32))
    np.testing.assert_allclose(answer["predictions"][0]["mc"]["mean"], expected.mc_mean[0], atol=1e-6)


def test_nothing_loaded_is_not_ready(serve: Callable, settings: Callable) -> None:
    with serve(settings()) as base:
        assert httpx.get(f"{base}/v1/models").json() == {"models": []}
        assert "DUBIO_MODELS" in problem(httpx.post(f"{base}/v1/predict", json=GOOD), 503)


def test_what_v1_did_is_in_the_statistics(
    serve: Callable[..., Any], settings: Callable[..., Any], checkpoint: Path, bars: np.ndarray
) -> None:
    with serve(settings(models=(str(checkpoint),))) as base:
        path = f"{base}/v1/models/bars/predict"
        assert httpx.post(path, json={"instances": bars[:3].tolist()}).status_code == 200
        assert httpx.post(path, json={"instances": bars[:2, 0, 0].tolist()}).status_code == 422
        assert httpx.post(path, content=b"{").status_code == 400
        [model] = httpx.get(f"{base}/v2/models/bars/stats").json()["model_stats"]
    stats = model["inference_stats"]
    assert model["inference_count"] == 3
    assert {name: stats[name]["count"] for name in ("success", "fail", "compute_input", "compute_output")} == {
        "success": 1, "fail": 2, "compute_input": 1, "compute_output": 1,
    }  # fmt: skip
    assert stats["compute_input"]["ns"] > 0
