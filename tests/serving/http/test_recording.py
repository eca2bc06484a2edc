from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.serving.telemetry.test_expected_series import scrape

STRANGER = [[[200.0] * 8] * 8]
WAIT = {"Dubio-Store": "wait"}
BINARY = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}


def stored(path: Path) -> list[tuple]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT request_id, row_number, kept FROM answers ORDER BY id").fetchall()
    connection.close()
    return rows


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_every_protocol_says_whether_its_rows_are_on_disk(
    serve: Callable, settings: Callable, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.sqlite"
    given = settings(models=(f"bars={checkpoint}",), store=path, store_share=0)
    tensor = {"name": "input", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [STRANGER]}
    raw = np.float32(STRANGER).tobytes()
    calls = [
        ("/v1/predict", {"json": {"instances": [STRANGER]}}, {}),
        ("/v1/models/bars:predict", {"json": {"instances": [STRANGER]}}, {}),
        ("/v2/models/bars/infer", {"json": {"inputs": [tensor]}}, {}),
        ("/v2/models/bars/infer", {"content": raw}, BINARY),
    ]
    with serve(given) as base, httpx.Client(base_url=base, timeout=30) as client:
        for number, (route, body, headers) in enumerate(calls):
            answer = client.post(route, headers={**headers, **WAIT, "X-Request-Id": f"r{number}"}, **body)
            assert (answer.status_code, answer.headers["dubio-stored"]) == (200, "true"), route
            assert (f"r{number}", 0, "flagged") in stored(path)
            silent = client.post(route, headers=headers, **body)
            assert "dubio-stored" not in silent.headers
            wrong = client.post(route, headers={**headers, "Dubio-Store": "yes"}, **body)
            assert wrong.status_code == (422 if route == "/v1/predict" else 400)
            assert "to be 'wait', but got 'yes'" in wrong.text
            # What nobody waited for comes a moment later.
            wait_until(lambda rows=2 * (number + 1): len(stored(path)) == rows)
        wait_until(lambda: scrape(base)["dubio_store_written_total",] == 8)
        metrics = scrape(base)
    assert metrics["dubio_store_dropped_total",] == 0
    assert metrics["dubio_store_failing",] == 0


def test_answers_go_on_while_the_database_is_locked_and_it_catches_up(
    serve: Callable, settings: Callable, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.sqlite"
    given = settings(models=(f"bars={checkpoint}",), store=path, store_share=0, store_wait_seconds=0.1)
    body = {"instances": [STRANGER]}
    with serve(given) as base, httpx.Client(base_url=base, timeout=30) as client:
        answer = client.post("/v1/predict", json=body, headers=WAIT)
        while answer.headers["dubio-stored"] != "true":  # the tables are made meanwhile
            answer = client.post("/v1/predict", json=body, headers=WAIT)
        before = len(stored(path))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(20):
            assert client.post("/v1/predict", json=body).status_code == 200
        late = client.post("/v1/predict", json=body, headers=WAIT)
        assert (late.status_code, late.headers["dubio-stored"]) == (200, "false")
        assert scrape(base)["dubio_store_waiting_rows",] == 21
        other.execute("ROLLBACK")
        other.close()
        wait_until(lambda: len(stored(path)) == before + 21)


def test_what_a_caller_sent_is_stored_over_every_protocol(
    serve: Callable, settings: Callable, table_checkpoint: Path, text_checkpoint: Path, tmp_path: Path
) -> None:
    given = settings(models=(str(table_checkpoint), str(text_checkpoint)), store=tmp_path / "s")
    row = {"age": 30, "income": None, "city": "Bern", "member": True}
    columns = [
        {"name": "age", "shape": [1], "datatype": "INT64", "data": [30]},
        {"name": "income", "shape": [1], "datatype": "FP64", "data": [None]},
        {"name": "city", "shape": [1], "datatype": "BYTES", "data": ["Bern"]},
        {"name": "member", "shape": [1], "datatype": "BOOL", "data": [True]},
    ]
    text = "where is the money"
    texts = [{"name": "input", "shape": [1], "datatype": "BYTES", "data": [text]}]
    calls = [
        ("/v1/models/table/predict", {"instances": [row]}, row),
        ("/v1/models/table:predict", {"instances": [row]}, row),
        ("/v2/models/table/infer", {"inputs": columns}, row),
        ("/v1/models/text/predict", {"instances": [text]}, text),
        ("/v1/models/text:predict", {"inputs": [text]}, text),
        ("/v2/models/text/infer", {"inputs": texts}, text),
    ]
    with serve(given) as base, httpx.Client(base_url=base, timeout=30) as client:
        for number, (route, body, sent) in enumerate(calls):
            answer = client.post(route, json=body, headers={**WAIT, "X-Request-Id": f"r{number}"})
            assert (answer.status_code, answer.headers["dubio-stored"]) == (200, "true"), answer.text
            query = {"request_id": f"r{number}", "inputs": "true"}
            [review] = client.get("/v1/reviews", params=query).json()["reviews"]
            assert review["input"]["instance"] == sent, route


@pytest.mark.parametrize("store_input", ["thumbnail", "hash"])
def test_less_than_the_input_is_stored_where_that_is_wished(
    serve: Callable, settings: Callable, checkpoint: Path, tmp_path: Path, store_input: str
) -> None:
    given = settings(models=(f"bars={checkpoint}",), store=tmp_path / "s", store_input=store_input)
    with serve(given) as base, httpx.Client(base_url=base, timeout=30) as client:
        client.post("/v1/predict", json={"instances": [STRANGER]}, headers=WAIT)
        [review] = client.get("/v1/reviews", params={"inputs": "true"}).json()["reviews"]
        assert review["input"]["form"] == store_input
        assert review["input"]["instance"] is None
        assert (review["input"]["picture"] is None) == (store_input == "hash")
