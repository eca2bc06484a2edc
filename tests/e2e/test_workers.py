"""Two workers with a store, a shadow and drift: they count together, through a restart, and both take over."""

from __future__ import annotations

import re
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.serving.conftest import draw_bars

KEY = "a-good-key-for-tests-0123456789"
HEADERS = {"X-API-Key": KEY}
PREDICT, FEEDBACK, COMPARISON = "/v1/models/bars/predict", "/v1/feedback", "/v1/models/bars/comparison"
DRIFT = "/v1/models/bars/versions/1/drift"
# As often as it takes that each of both was asked, but for one time in four thousand.
LOOKS = 13


def get(url: str) -> Any:
    """On a connection of its own, which either worker takes."""
    answer = httpx.get(url, headers=HEADERS, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def wait_for(looks: Callable[[], set[Any]], expected: set[Any]) -> None:
    until = time.monotonic() + 120
    while (found := looks()) != expected:
        assert time.monotonic() < until, found
        time.sleep(0.1)


def standings(url: str) -> set[str]:
    return {get(url + COMPARISON)["standing"] for _ in range(LOOKS)}


def total(url: str, name: str) -> int:
    text = httpx.get(f"{url}/metrics", headers=HEADERS, timeout=60).text
    return sum(int(float(value)) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, flags=re.MULTILINE))


def ask(url: str, bars: np.ndarray, requests: int, prefix: str) -> list[dict[str, Any]]:
    """Requests of five rows, all of which are kept; gives the feedback that the deterministic label was right."""

    def post(number: int) -> list[dict[str, Any]]:
        name = f"{prefix}-{number}"
        answer = httpx.post(
            url + PREDICT,
            json={"instances": bars[:5].tolist()},
            headers={**HEADERS, "Dubio-Store": "wait", "X-Request-Id": name},
            timeout=60,
        )
        assert (answer.status_code, answer.headers["dubio-stored"]) == (200, "true"), answer.text
        labels = [each["deterministic"]["label"] for each in answer.json()["predictions"]]
        return [{"request_id": name, "row": row, "label": label} for row, label in enumerate(labels)]

    with ThreadPoolExecutor(4) as pool:
        return [label for labels in pool.map(post, range(requests)) for label in labels]


def rows_of(path: Path, table: str) -> int:
    with sqlite3.connect(path) as connection:
        [[rows]] = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    connection.close()
    return rows


@pytest.mark.slow
def test_two_workers_count_together_through_a_restart_and_both_take_over(
    command: Any, checkpoint: Path, tmp_path: Path
) -> None:
    bars = draw_bars(60, 9)[0]
    root, store = tmp_path / "models", tmp_path / "store.sqlite"
    for folder in ("1", "2.shadow"):  # the same network, so that no label differs
        (root / "bars" / folder).mkdir(parents=True)
        shutil.copy(checkpoint, root / "bars" / folder / "model.ckpt")
    arguments = ["--model-repository", str(root), "--model-control", "poll", "--poll-seconds", "0.5", "--workers", "2"]
    arguments += ["--store", str(store), "--store-wait-seconds", "60", "--state-folder", str(tmp_path / "state")]
    arguments += ["--shadow-share", "1", "--shadow-margin", "0.2", "--strategy", "loop"]
    keys = {"DUBIO_API_KEYS": f"infer,review,admin,metrics:{KEY}"}
    with command.started(*arguments, **keys) as service:
        url = service.url
        wait_for(lambda: standings(url), {"running"})
        labels = ask(url, bars, 80, "familiar")
        wait_for(lambda: {get(url + DRIFT)["rows"] for _ in range(LOOKS)}, {400})
        names = ("dubio_shadow_rows_total", "dubio_shadow_skipped_rows_total")
        wait_for(lambda: {sum(total(url, name) for name in names)}, {400})
        compared = total(url, "dubio_shadow_rows_total")
        assert compared > 150
        wait_for(lambda: {get(url + COMPARISON)["rows"] for _ in range(LOOKS)}, {compared})
        wait_for(lambda: {rows_of(store, "shadow_answers")}, {compared})
        assert rows_of(store, "answers") == 400
        told = httpx.post(url + FEEDBACK, json={"labels": labels}, headers=HEADERS, timeout=60)
        assert told.json() == {"joined": 400, "not_stored": []}
        shown = get(url + COMPARISON)
        assert [shown["accuracy"][side]["correct"] for side in ("live", "shadow")] == [compared, compared]
        [quality] = get(f"{url}/v1/models/bars/quality")["versions"]
        assert (quality["version"], quality["rows"]) == ("1", 400)

        ask(url, bars + 400, 20, "strange")
        wait_for(lambda: {get(url + DRIFT)["alarm"] is not None for _ in range(LOOKS)}, {True})
        time.sleep(2)  # a second alarm would come with the next rows that are counted
        assert service.log.count("Drift: the rows of model bars version 1") == 1, service.log
        drifted = get(url + DRIFT)
        wait_for(lambda: {sum(total(url, name) for name in names)}, {500})
        assert service.finish(signal.SIGTERM) == 0

    with command.started(*arguments, **keys) as service:
        url = service.url
        wait_for(lambda: standings(url), {"running"})
        assert {str(get(url + DRIFT)) for _ in range(LOOKS)} == {str(drifted)}
        again = get(url + COMPARISON)
        assert again["rows"] >= compared
        assert again["accuracy"] == shown["accuracy"]
        assert again["promotable"]
        promoted = httpx.post(f"{url}/v1/models/bars/promote", headers=HEADERS, timeout=60)
        assert promoted.json() == {"name": "bars", "version": "2"}

        def version(_: int) -> str:
            answer = httpx.post(url + PREDICT, json={"instances": bars[:1].tolist()}, headers=HEADERS, timeout=60)
            assert answer.status_code == 200, answer.text
            return answer.json()["model"]["version"]

        wait_for(lambda: {version(look) for look in range(LOOKS)}, {"2"})
        assert service.finish(signal.SIGTERM) == 0
