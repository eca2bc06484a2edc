"""Shadows over HTTP: they change no answer, they are compared, and they are promoted with evidence or by force."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from scipy.stats import beta

from dubio.serving.v1.shadow_routes import ComparisonReport

KEY = "a-good-key-for-tests-0123456789"
COMPARISON, PROMOTE, DRIFT = (f"/v1/models/bars/{what}" for what in ("comparison", "promote", "drift"))


def put(checkpoint: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    shutil.copy(checkpoint, folder / "part")
    (folder / "part").rename(folder / "model.ckpt")


@pytest.fixture
def root(tmp_path: Path, checkpoint: Path) -> Path:
    put(checkpoint, tmp_path / "models" / "bars" / "1")
    return tmp_path / "models"


@pytest.fixture
def start(serve: Callable, settings: Callable, root: Path) -> Callable:
    """A service of the directory, and a client of it."""

    @contextmanager
    def started(**given: Any) -> Iterator[httpx.Client]:
        keys = f"infer,admin,metrics:{KEY} infer:another-good-key-0123456789"
        # Alone in its batch, and with one strategy, an input is answered the same to the last bit.
        alike = {"max_batch_rows": 1, "strategy": "loop"}
        given = {"model_repository": root, "api_keys": keys, "shadow_share": 1.0, **alike, **given}
        with (
            serve(settings(**given)) as base,
            httpx.Client(base_url=base, headers={"X-API-Key": KEY}, timeout=60) as client,
        ):
            yield client

    return started


def compared(client: httpx.Client) -> dict[str, Any]:
    answer = client.get(COMPARISON)
    assert answer.status_code == 200, answer.text
    ComparisonReport.model_validate_json(answer.content)
    return answer.json()


def wait_for(client: httpx.Client, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    until = time.monotonic() + 120
    while not condition(shown := compared(client)):
        assert time.monotonic() < until, shown
        time.sleep(0.02)
    return shown


def running(shown: dict[str, Any]) -> bool:
    assert shown["standing"] != "ended", shown
    return shown["standing"] == "running"


def ask(client: httpx.Client, bars: np.ndarray, times: int) -> list[Any]:
    """Every row alone, on several connections at once."""

    def post(row: int) -> Any:
        answer = client.post("/v1/models/bars/predict", json={"instances": bars[row : row + 1].tolist()})
        assert answer.status_code == 200, answer.text
        return answer.json()["predictions"]

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(post, [*range(len(bars))] * times))


@pytest.mark.slow
def test_a_shadow_changes_no_answer_and_is_refused_until_it_is_forced(
    start: Callable, root: Path, second_checkpoint: Path, bars: np.ndarray
) -> None:
    with start() as client:
        assert client.get(COMPARISON).status_code == client.post(PROMOTE).status_code == 404
        alone = ask(client, bars, 2)
    put(second_checkpoint, root / "bars" / "2.shadow")
    # More evidence than the rows that are asked can give, if all of them agree.
    with start(model_control="poll", poll_seconds=0.2, shadow_alpha=0.0001) as client:
        wait_for(client, running)
        assert client.get("/v2/models/bars").json()["versions"] == ["1"]
        assert client.get("/v2/models/bars/versions/2/ready").status_code == 404
        assert ask(client, bars, 2) == alone  # not one differs
        shown = wait_for(client, lambda shown: shown["rows"] > 20)
        assert (shown["live"]["version"], shown["shadow"]["version"]) == ("1", "2")
        assert shown["rows"] >= shown["disagreement"]["rows"]
        assert shown["live"]["flagged"]["rows"] <= shown["rows"]
        assert shown["live"]["seconds"]["mean"] > 0
        assert shown["e_value"] == min(shown["e_values"].values())
        assert client.get(DRIFT).json()["rows"] == 120  # without those of the shadow
        assert 'dubio_shadow_rows_total{model="bars",version="2"}' in client.get("/metrics").text

        assert client.post(PROMOTE, headers={"X-API-Key": "another-good-key-0123456789"}).status_code == 403
        assert client.post(PROMOTE, json={"forse": True}).status_code == 422
        refused = client.post(PROMOTE)
        assert (refused.status_code, refused.json()["title"]) == (409, "Promotion refused")
        assert "Expected evidence of 10000" in refused.json()["detail"]
        assert client.get("/v2/models/bars").json()["versions"] == ["1"]

        forced = client.post(PROMOTE, json={"force": True})
        assert (forced.status_code, forced.json()) == (200, {"name": "bars", "version": "2"})
        answer = client.post("/v1/models/bars/predict", json={"instances": bars[:1].tolist()})
        assert answer.json()["model"] == {"name": "bars", "version": "2"}
        assert client.get(COMPARISON).status_code == 404
        assert [path.name for path in sorted((root / "bars").iterdir())] == ["1", "2"]


@pytest.mark.slow
def test_evidence_promotes_without_a_gap(
    start: Callable, root: Path, checkpoint: Path, bars: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    """The shadow is the same checkpoint, so that nothing changes; callers go on meanwhile."""
    put(checkpoint, root / "bars" / "2.shadow")
    with start(shadow_margin=0.2) as client:
        wait_for(client, running)
        statuses: set[int] = set()
        ended = threading.Event()

        def call() -> None:
            with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as own:
                while not ended.is_set():
                    statuses.add(own.post("/v1/models/bars/predict", json={"instances": bars.tolist()}).status_code)

        caller = threading.Thread(target=call)
        caller.start()
        try:
            shown = wait_for(client, lambda shown: shown["promotable"])
            assert shown["disagreement"]["rows"] == 0
            promoted = client.post(PROMOTE, json={})
        finally:
            ended.set()
            caller.join()
        assert promoted.status_code == 200, promoted.text
        assert statuses == {200}
        assert client.get("/v2/models/bars").json()["versions"] == ["1", "2"]


@pytest.mark.slow
def test_one_that_cannot_be_loaded_is_put_back(start: Callable, root: Path, bars: np.ndarray) -> None:
    (root / "bars" / "2.shadow").mkdir()
    (root / "bars" / "2.shadow" / "model.ckpt").write_bytes(b"half a fi")
    with start() as client:
        shown = wait_for(client, lambda shown: shown["standing"] == "ended")
        assert shown["reason"]
        assert (shown["rows"], shown["promotable"]) == (None, False)
        assert "has ended" in client.post(PROMOTE).json()["detail"]
        failed = client.post(PROMOTE, json={"force": True})
        assert (failed.status_code, failed.json()["title"]) == (422, "Load failed")
        assert (root / "bars" / "2.shadow" / "model.ckpt").exists()
        assert client.post("/v1/predict", json={"instances": bars[:1].tolist()}).status_code == 200


@pytest.mark.slow
def test_true_labels_promote_a_shadow_that_mends_more_labels_than_the_margin(
    start: Callable, root: Path, checkpoint: Path, bars: np.ndarray, tmp_path: Path
) -> None:
    """The shadow is the same network with other names of its classes, so that all labels change, and no flag."""
    content = torch.load(checkpoint, weights_only=True)
    classes = content["dubio"]["classes"]
    content["dubio"]["classes"] = classes[1:] + classes[:1]
    torch.save(content, tmp_path / "renamed.ckpt")
    put(tmp_path / "renamed.ckpt", root / "bars" / "2.shadow")
    with start(store=tmp_path / "store.sqlite") as client:
        shown = wait_for(client, running)
        assert shown["accuracy"] is None
        assert "has a true label" in shown["accuracy_reason"]
        said: list[tuple[str, int, str]] = []
        for number in range(3):
            asked = {"X-Request-Id": f"r{number}", "Dubio-Store": "wait"}
            answer = client.post("/v1/models/bars/predict", json={"instances": bars.tolist()}, headers=asked)
            predictions = answer.json()["predictions"]
            said += [(f"r{number}", row, each["deterministic"]["label"]) for row, each in enumerate(predictions)]
            sent = len(said)
            wait_for(client, lambda shown, sent=sent: shown["rows"] == sent)  # so that none is skipped
        refused = client.post(PROMOTE)
        assert refused.status_code == 409
        assert "180 labels changed" in refused.json()["detail"]
        assert "send true labels to /v1/feedback" in refused.json()["detail"]

        # The version that answers is right about ten rows, the shadow about the others.
        others = {name: classes[(place + 1) % len(classes)] for place, name in enumerate(classes)}
        labels = [
            {"request_id": name, "row": row, "label": label if place < 10 else others[label]}
            for place, (name, row, label) in enumerate(said)
        ]
        for _ in range(2):  # told twice, counted once
            assert client.post("/v1/feedback", json={"labels": labels}).json()["joined"] == 180
        shown = wait_for(client, lambda shown: shown["accuracy"] and shown["accuracy"]["rows"] == 180)
        assert (shown["disagreement"]["share"], shown["accuracy_reason"]) == (1, None)
        for side, correct in (("live", 10), ("shadow", 170)):
            found = shown["accuracy"][side]
            assert (found["correct"], found["share"]) == (correct, correct / 180)
            low, high = beta.ppf(0.025, correct, 181 - correct), beta.ppf(0.975, correct + 1, 180 - correct)
            assert found["interval"] == pytest.approx([low, high], abs=1e-6)
        assert shown["accuracy"]["e_value"] == shown["e_values"]["accuracy"] > 40 > shown["e_values"]["unchanged"]
        assert shown["promotable"]
        assert client.post(PROMOTE).json() == {"name": "bars", "version": "2"}
