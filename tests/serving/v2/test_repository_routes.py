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
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

from dubio import models
from dubio.models import Ensemble, Work
from dubio.serving.v1.schema import PredictResponse
from dubio.serving.v2 import schema

KEY = "a-good-key-for-tests-0123456789"
INDEX = "/v2/repository/index"


def put(checkpoint: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(checkpoint, folder / "part")
    return (folder / "part").rename(folder / "model.ckpt")


def control(name: str, verb: str) -> str:
    return f"/v2/repository/models/{name}/{verb}"


@pytest.fixture
def administered(serve: Callable, settings: Callable) -> Callable:
    """A service that lets a key administrate, and a client with that key."""

    @contextmanager
    def start(**given: Any) -> Iterator[httpx.Client]:
        with (
            serve(settings(api_keys=f"infer,admin:{KEY}", **given)) as base,
            httpx.Client(base_url=base, headers={"X-API-Key": KEY}, timeout=60) as client,
        ):
            yield client

    return start


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def states(client: httpx.Client, body: bytes = b"") -> list[tuple[str, str, str]]:
    answer = client.post(INDEX, content=body)
    assert answer.status_code == 200
    lines = answer.json()
    for line in lines:
        schema.IndexEntry.model_validate(line)
    return [(line["name"], line["version"], line["state"]) for line in lines]


def test_the_life_of_a_model(administered: Callable, checkpoint: Path, numbers_checkpoint: Path, root: Path) -> None:
    put(checkpoint, root / "bars" / "1")
    put(checkpoint, root / "bars" / "2")
    with administered(models=(str(numbers_checkpoint),), model_repository=root, model_control="explicit") as client:
        unloaded = [("bars", "1", "UNAVAILABLE"), ("bars", "2", "UNAVAILABLE")]
        row = [("row", "1", "READY")]
        assert states(client) == row + unloaded
        assert states(client, b"{}") == states(client, b'{"ready":false}') == row + unloaded
        assert states(client, b'{"ready":true}') == row
        assert client.get("/v2/models/bars/ready").status_code == 404

        answer = client.post(control("bars", "load"))
        assert (answer.status_code, answer.content) == (200, b"")
        assert states(client) == [*row, ("bars", "1", "READY"), ("bars", "2", "READY")]
        for path in ("/v2/models/bars/ready", "/v2/models/bars/versions/1/ready", "/v2/models/bars/versions/2/ready"):
            assert client.get(path).status_code == 200
        assert client.get("/v2/models/bars").json()["versions"] == ["1", "2"]
        assert client.get("/v2/models/bars/versions/3/ready").status_code == 404
        assert client.post(control("bars", "load"), content=b'{"parameters":{}}').status_code == 200

        for _ in range(2):
            answer = client.post(control("bars", "unload"), json={"parameters": {"unload_dependents": False}})
            assert (answer.status_code, answer.content) == (200, b"")
        assert states(client) == row + unloaded
        assert client.get("/v2/models/bars/ready").status_code == 404


def test_a_failed_load_says_why_and_the_old_version_answers(
    administered: Callable, checkpoint: Path, root: Path, bars: np.ndarray
) -> None:
    put(checkpoint, root / "bars" / "1")
    with administered(model_repository=root) as client:
        put(checkpoint, root / "bars" / "2").write_bytes(b"half a fi")
        answer = client.post(control("bars", "load"))
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error.startswith("Failed to load 'bars', version 2: ")
        assert str(root) not in error
        assert states(client) == [("bars", "1", "READY"), ("bars", "2", "UNAVAILABLE")]
        [reason] = [line["reason"] for line in client.post(INDEX).json() if line["version"] == "2"]
        assert reason in error
        answer = client.post("/v1/predict", json={"instances": bars[:1].tolist()})
        assert answer.json()["model"] == {"name": "bars", "version": "1"}


@pytest.mark.parametrize("name", ["none", "..", "%2e%2e", "..%2fbars", "bars%00", "%2e%2e%2f%2e%2e%2fetc", "a b", "é"])
def test_names_that_are_nobodys_are_not_found(administered: Callable, checkpoint: Path, root: Path, name: str) -> None:
    put(checkpoint, root / "bars" / "1")
    put(checkpoint, root.parent / "outside" / "1")
    with administered(model_repository=root) as client:
        for verb in ("load", "unload"):
            answer = client.post(control(name, verb))
            assert answer.status_code == 404
            assert list(answer.json()) == ["error"]
        assert states(client) == [("bars", "1", "READY")]


def test_the_cure_of_a_wrong_name_is_the_nearest_or_where_names_are(
    administered: Callable, checkpoint: Path, root: Path
) -> None:
    put(checkpoint, root / "bars" / "1")
    with administered(model_repository=root) as client:
        for given, cure in (("barz", "did you mean `bars`?"), ("zzz", "`POST /v2/repository/index` lists them.")):
            assert client.post(control(given, "load")).json()["error"].endswith(f"but got '{given}'; {cure}")
    with administered(models=(f"bars={checkpoint}",)) as client:
        told = client.post(control("zzz", "load")).json()["error"]
        assert told.endswith("but got 'zzz'; there is no repository, which `--model-repository` would name.")


def test_bodies_that_mean_something_else_are_refused(administered: Callable, checkpoint: Path) -> None:
    with administered(models=(f"bars={checkpoint}",)) as client:
        for body in (b"{", b"[]", b'{"parameters":{"config":"{}"}}', b'{"parameters":{"file:1/model.ckpt":"UEs="}}'):
            for path in (INDEX, control("bars", "load"), control("bars", "unload")):
                answer = client.post(path, content=body)
                assert answer.status_code == 400
                assert list(answer.json()) == ["error"]
        assert states(client) == [("bars", "1", "READY")]


def test_without_an_admin_key_it_is_off(client: httpx.Client) -> None:
    for path in (INDEX, control("bars", "load"), control("bars", "unload")):
        answer = client.post(path)
        assert answer.status_code == 403
        assert answer.json()["error"].startswith("Administration is off")


def test_where_the_service_controls_itself_requests_are_refused(
    administered: Callable, checkpoint: Path, root: Path
) -> None:
    put(checkpoint, root / "bars" / "1")
    with administered(model_repository=root, model_control="poll", poll_seconds=60) as client:
        for verb in ("load", "unload"):
            answer = client.post(control("bars", verb))
            assert answer.status_code == 409
            assert "it is poll" in answer.json()["error"]
        assert states(client) == [("bars", "1", "READY")]
    with administered(models=(str(checkpoint),), workers=2) as client:
        answer = client.post(control("bars", "load"))
        assert answer.status_code == 409
        assert "reaches one of them only" in answer.json()["error"]


def test_a_watched_directory_is_followed(administered: Callable, checkpoint: Path, root: Path) -> None:
    root.mkdir()
    with administered(model_repository=root, model_control="poll", poll_seconds=0.1) as client:
        assert client.get("/v2/health/ready").status_code == 503
        put(checkpoint, root / "bars" / "1")
        while client.get("/v2/health/ready").status_code != 200:
            time.sleep(0.02)
        put(checkpoint, root / "bars" / "2")
        while client.get("/v2/models/bars/versions/2/ready").status_code != 200:
            time.sleep(0.02)
        assert client.get("/v2/models/bars/versions/1/ready").status_code == 200
        shutil.rmtree(root / "bars" / "1")
        while client.get("/v2/models/bars/versions/1/ready").status_code != 404:
            time.sleep(0.02)
        assert states(client) == [("bars", "2", "READY")]


def test_unloading_lets_a_running_request_finish(
    administered: Callable, gated_checkpoint: Path, gate: Path, checkpoint: Path
) -> None:
    given = (f"bars={checkpoint}", f"slow={gated_checkpoint}")
    with administered(models=given, trusted=("gated_networks",)) as client:
        gate.touch()
        body = {"instances": [[1, 2, 3, 4, 5]]}
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(client.post, "/v1/models/slow/predict", json=body)
            while not gate.with_suffix(".waiting").exists():
                time.sleep(0.01)
            assert client.post(control("slow", "unload")).status_code == 200
            assert ("slow", "1", "UNLOADING") in states(client)
            assert client.post("/v1/models/slow/predict", json=body).status_code == 404
            gate.unlink()
            assert running.result().status_code == 200
        while ("slow", "1", "UNAVAILABLE") not in states(client):
            time.sleep(0.02)


def test_under_traffic_every_answer_is_from_the_old_or_the_new_version_and_none_fails(
    administered: Callable, checkpoint: Path, second_checkpoint: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(1).uniform(0, 16, (12, 1, 8, 8)).astype(np.float32)
    expected = []
    for path in (checkpoint, second_checkpoint):
        predictor = models.load(path)
        expected.append((predictor.predict(noise, work=Work.DETERMINISTIC).probabilities, predictor.predict(noise)))
    assert np.abs(expected[0][0] - expected[1][0]).max() > 0.1
    served = put(checkpoint, tmp_path / "served")
    over = threading.Event()

    def ask(base: str, row: int) -> list[int]:
        seen = []
        with httpx.Client(base_url=base, headers={"X-API-Key": KEY}, timeout=60) as own:
            while not over.is_set():
                answer = own.post("/v1/models/bars/predict", json={"instances": noise[row : row + 4].tolist()})
                assert answer.status_code == 200, answer.text
                predictions = answer.json()["predictions"]
                plain = np.array([each["deterministic"]["probabilities"] for each in predictions], np.float32)
                mean = np.array([each["mc"]["mean"] for each in predictions], np.float32)
                [which] = [
                    index
                    for index, (probabilities, full) in enumerate(expected)
                    if np.allclose(plain, probabilities[row : row + 4], rtol=0, atol=1e-5)
                    and np.allclose(mean, full.mc_mean[row : row + 4], rtol=0, atol=1e-5)
                ]
                seen.append(which)
        return seen

    with administered(models=(f"bars={served}",)) as client, ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, str(client.base_url), 4 * each) for each in range(3)]
        try:
            for path in (second_checkpoint, checkpoint) * 3:
                put(path, tmp_path / "served")
                assert client.post(control("bars", "load")).status_code == 200
        finally:
            over.set()
        seen = [which for each in asking for which in each.result()]
    assert set(seen) == {0, 1}


def test_an_unmodified_triton_client_controls_models(administered: Callable, checkpoint: Path, root: Path) -> None:
    put(checkpoint, root / "bars" / "1")
    headers = {"X-API-Key": KEY}
    with administered(model_repository=root, model_control="explicit") as client:
        triton = InferenceServerClient(f"{client.base_url.host}:{client.base_url.port}")
        try:
            assert not triton.is_model_ready("bars", headers=headers)
            triton.load_model("bars", headers=headers)
            assert triton.is_model_ready("bars", headers=headers)
            [line] = triton.get_model_repository_index(headers=headers)
            assert line == {"name": "bars", "version": "1", "state": "READY", "reason": ""}
            with pytest.raises(InferenceServerException, match="own disk"):
                triton.load_model("bars", headers=headers, config="{}")
            triton.unload_model("bars", headers=headers)
            assert not triton.is_model_ready("bars", headers=headers)
            with pytest.raises(InferenceServerException, match="Expected the name of a model"):
                triton.load_model("none", headers=headers)
        finally:
            triton.close()


def test_an_ensemble_answers_like_any_model(
    serve: Callable, settings: Callable, checkpoint: Path, second_checkpoint: Path, bars: np.ndarray
) -> None:
    expected = Ensemble.build([models.load(checkpoint), models.load(second_checkpoint)]).predict(bars)
    with serve(settings(models=(f"deep={checkpoint}+{second_checkpoint}",))) as base:
        answer = httpx.post(f"{base}/v1/predict", json={"instances": bars.tolist()})
        assert answer.status_code == 200
        PredictResponse.model_validate(answer.json())
        predictions = answer.json()["predictions"]
        for column, key in [(expected.mc_mean, "mean"), (expected.mc_std, "std")]:
            np.testing.assert_allclose([each["mc"][key] for each in predictions], column, atol=1e-5)
        assert [each["mc"]["samples"] for each in predictions] == [32] * len(bars)
        assert [each["ood"]["flagged"] for each in predictions] == expected.flagged.tolist()
        assert {each["ood"]["level"] for each in predictions} == {expected.level}

        few = httpx.post(f"{base}/v1/predict", json={"instances": bars[:1].tolist(), "parameters": {"samples": 3}})
        assert few.json()["predictions"][0]["mc"]["samples"] == 3
        assert few.json()["predictions"][0]["ood"]["reason"] == "not_calibrated_for_these_samples"
        card = httpx.get(f"{base}/v1/models/deep").json()
        assert (card["committee"]["num_samples"], len(card["checkpoints"])) == (32, 2)
        assert "ood_flag" in [each["name"] for each in httpx.get(f"{base}/v2/models/deep").json()["outputs"]]
