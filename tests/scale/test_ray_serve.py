from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("ray.serve")

from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from dubio.models.errors import InvalidInput
from dubio.scale.ray_serve import METRIC, Replica, WaitingRows, app, read_arguments
from dubio.serving.telemetry.gauges import GAUGES
from tests.serving.conftest import checkpoint, gate, gated_checkpoint  # noqa: F401  # fixtures

ROOT = Path(__file__).parents[2]
# Ray warns about its own future.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DUBIO_MODELS", "DUBIO_MODEL_REPOSITORY", "DUBIO_TORCH_THREADS"):
        monkeypatch.delenv(name, raising=False)


def test_arguments_are_rays_and_those_of_the_service() -> None:
    args = {"models": "a=/m/a.ckpt,/m/b/model.ckpt", "max_replicas": "4", "waiting_rows": "32", "max_rows": "10"}
    scaling, settings = read_arguments(args)
    assert settings.models == ("a=/m/a.ckpt", "b=/m/b/model.ckpt")
    assert settings.max_rows == 10
    assert settings.workers == 4  # so that nobody loads a model into one replica alone
    options = scaling.options(settings)
    assert options["max_ongoing_requests"] == settings.max_queue_rows
    assert options["graceful_shutdown_timeout_s"] == settings.grace_seconds
    config = options["autoscaling_config"]
    assert (config["min_replicas"], config["max_replicas"]) == (1, 4)
    assert config["policy"]["policy_kwargs"] == {"rows": 32.0}


def test_what_is_not_given_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBIO_MODEL_REPOSITORY", "/models")
    monkeypatch.setenv("DUBIO_API_KEYS", "infer:a-key-of-a-test-0123")
    _, settings = read_arguments({})
    assert settings.model_repository == Path("/models")
    assert settings.api_keys is not None
    assert "a-key" not in repr(settings)


def test_relative_paths_are_those_of_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    _, settings = read_arguments({"models": "digits,deep=a.ckpt+b.ckpt", "state_folder": "states"})
    assert settings.models == (f"digits={tmp_path}/digits", f"deep={tmp_path}/a.ckpt+{tmp_path}/b.ckpt")
    assert settings.state_folder == tmp_path / "states"


@pytest.mark.parametrize(("cpus", "given", "threads"), [(1, None, 1), (4, None, 4), (0.5, None, 1), (4, "2", 2)])
def test_a_replica_takes_the_processors_that_it_was_given(cpus: float, given: str | None, threads: int) -> None:
    more = {} if given is None else {"torch_threads": given}
    _, settings = read_arguments({"models": "/m/a.ckpt", "num_cpus": cpus, **more})
    assert settings.torch_threads == threads


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ({}, "Expected a model, but got none; name one, models=digits="),
        ({"models": "a.ckpt", "workers": "2"}, "set `max_replicas`"),
        ({"models": "a.ckpt", "port": "80"}, "Expected no `port`, because Ray's proxies hold the connections"),
        ({"models": "a.ckpt", "max_replica": "2"}, "got 'max_replica'; did you mean `max_replicas`?"),
        ({"models": "a.ckpt", "anything": "2"}, "`dubio-serve --help` lists the settings"),
        ({"models": "a.ckpt", "min_replicas": 0}, "min_replicas: Input should be greater than or equal to 1."),
        ({"models": "a.ckpt", "min_replicas": 3, "max_replicas": 2}, "at most `max_replicas`, but got 3 and 2."),
        ({"models": "a.ckpt", "max_rows": "many"}, "max_rows: Input should be a valid integer"),
        ({"models": "a b=a.ckpt"}, "Expected the name of model"),
        (
            {"model_repository": "/m", "model_control": "explicit", "max_replicas": 2},
            "max_replicas: with model_control explicit it must be 1",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(args: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(complaint)):
        app(args)


def test_a_wrong_key_is_not_repeated() -> None:
    with pytest.raises(InvalidInput) as told:
        read_arguments({"models": "a.ckpt", "api_keys": ""})
    assert "DUBIO_API_KEYS is to say who may call" in str(told.value)


def context(waiting: dict[str, float] | None, current: int, target: int = 3) -> Any:
    metrics = None if waiting is None else {METRIC: waiting}
    return SimpleNamespace(aggregated_metrics=metrics, current_num_replicas=current, target_num_replicas=target)


@pytest.mark.parametrize(
    ("waiting", "current", "due"),
    [
        ({"a": 0.0}, 1, 0.0),  # Ray keeps at least one
        ({"a": 64.0}, 1, 1.0),
        ({"a": 96.0}, 1, 1.5),  # and rounds up
        ({"a": 64.0, "b": 192.0}, 2, 4.0),
        ({"a": 128.0}, 2, 4.0),  # the second has not said anything yet
        ({}, 2, 3),
        (None, 2, 3),
    ],
)
def test_each_replica_gets_its_share_of_the_rows_that_wait(
    waiting: dict[str, float] | None, current: int, due: float
) -> None:
    assert WaitingRows(64)(context(waiting, current)) == (due, {})


def test_rays_controller_gets_the_policy() -> None:
    args = {"models": "/m/a.ckpt", "max_replicas": 4, "waiting_rows": 32}
    scaling, settings = read_arguments(args)
    config = AutoscalingConfig(**scaling.options(settings)["autoscaling_config"])
    policy = config.policy.get_policy()  # from its bytes, in a process that has not imported this module
    assert policy(**config.policy.policy_kwargs)(context({"a": 96.0}, 1)) == (3.0, {})
    assert isinstance(app(args), Application)


def test_it_is_the_metric_that_the_service_shows() -> None:
    assert METRIC == "dubio_waiting_rows"
    assert METRIC in {gauge.name for gauge in GAUGES}


def test_a_replica_tells_what_waits_and_whether_it_hangs(
    gated_checkpoint: Path,  # noqa: F811
    gate: Path,  # noqa: F811
) -> None:
    """A real application in this process, without Ray."""
    import asyncio

    _, settings = read_arguments(
        {"models": str(gated_checkpoint), "trusted": "gated_networks", "strategy": "loop", "load_trial": "none"}
    )
    replica = Replica(settings.model_copy(update={"stalled_seconds": 0.01, "hung_seconds": 0.02}))

    async def ask() -> None:
        transport = httpx.ASGITransport(replica.__serve_build_asgi_app__())
        async with (
            replica._application.lifespan(),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            assert replica.record_autoscaling_stats() == {METRIC: 0.0}
            replica.check_health()
            gate.touch()
            asking = asyncio.create_task(client.post("/v1/predict", json={"instances": [[1, 2, 3, 4, 5]] * 7}))
            while not gate.with_suffix(".waiting").exists():
                await asyncio.sleep(0.01)
            assert replica.record_autoscaling_stats() == {METRIC: 7.0}
            await asyncio.sleep(0.03)
            with pytest.raises(RuntimeError, match=r"more than 0\.02 s; another replica"):
                replica.check_health()
            gate.unlink()
            assert (await asking).status_code == 200
            assert replica.record_autoscaling_stats() == {METRIC: 0.0}

    asyncio.run(ask())


def test_the_commands_of_the_page_are_read() -> None:
    page = (ROOT / "docs" / "ray_serve.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^serve run (?:--\S+ )*dubio\.scale\.ray_serve:app (.+)$", page, re.MULTILINE)
    assert commands
    for command in commands:
        read_arguments(dict(each.split("=", 1) for each in command.split()))


@pytest.fixture(scope="module")
def cluster(only_cluster: None) -> Iterator[str]:
    """A cluster of this machine and Serve's proxy on a free port; gives its URL."""
    import ray
    from ray import serve

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "0.5")
    patch.setenv("PYTHONPATH", str(ROOT))
    ray.init("local", num_cpus=3, object_store_memory=2**27, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()
    patch.undo()


def replica(client: httpx.Client) -> tuple[str, float]:
    """Of the replica that happens to answer: when its process began, and the rows that it predicted."""
    text = client.get("/metrics").text
    began = re.search(r"^process_start_time_seconds (\S+)$", text, re.MULTILINE)[1]
    return began, float(re.search(r"^dubio_rows_total\S* (\S+)$", text, re.MULTILINE)[1])


@pytest.mark.slow
def test_two_replicas_of_the_command_answer_alike_to_the_last_bit(
    cluster: str,
    checkpoint: Path,  # noqa: F811
) -> None:
    import ray

    command = shutil.which("serve", path=str(Path(sys.executable).parent))
    given = {"models": f"bars={checkpoint}", "min_replicas": 2, "max_replicas": 2, "strategy": "loop"}
    arguments = [f"{name}={value}" for name, value in {**given, "batch_invariant": "true"}.items()]
    line = [command, "run", "--non-blocking", "--address", ray.get_runtime_context().gcs_address]
    line += ["--name", "alike", "dubio.scale.ray_serve:app", *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    draws = np.random.default_rng(0)
    body = {"instances": draws.uniform(0, 16, (5, 8, 8)).round().tolist()}
    with httpx.Client(base_url=cluster, timeout=60) as client:
        answers = [client.post("/v1/models/bars/predict", json=body) for _ in range(40)]
        assert {answer.status_code for answer in answers} == {200}
        first = answers[0].json()["predictions"]
        assert len(first) == 5
        assert all(answer.json()["predictions"] == first for answer in answers)
        # Both may have begun in the same hundredth of a second.
        seen = {replica(client)}
        deadline = time.monotonic() + 60
        while len(seen) < 2:
            assert time.monotonic() < deadline
            seen.add(replica(client))
        assert min(rows for _, rows in seen) >= 5
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/v1/models", headers={"Host": "elsewhere.example.org"}).status_code == 421
    from ray import serve

    serve.delete("alike")


def running() -> int:
    from ray import serve

    return serve.status().applications["scaled"].deployments["dubio"].replica_states.get("RUNNING", 0)


def until(number: int) -> None:
    deadline = time.monotonic() + 240  # a replica starts a process and imports torch
    while running() != number:
        assert time.monotonic() < deadline, f"{running()} replicas"
        time.sleep(0.2)


@pytest.mark.slow
def test_replicas_come_and_go_with_the_rows_that_wait(
    cluster: str,
    checkpoint: Path,  # noqa: F811
) -> None:
    from ray import serve

    args = {"models": f"bars={checkpoint}", "strategy": "loop", "max_replicas": 2, "waiting_rows": 1}
    args |= {"upscale_delay_s": 0, "downscale_delay_s": 0, "look_back_period_s": 2}
    serve.run(app(args), name="scaled", route_prefix="/")
    assert running() == 1
    stop = threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        body = {"instances": [[[5.0] * 8] * 8] * 512}
        while not stop.is_set():
            statuses.append(httpx.post(f"{cluster}/v1/predict", json=body, timeout=60).status_code)

    caller = threading.Thread(target=ask)  # one request at a time, for which Ray by itself starts nothing
    caller.start()
    try:
        until(2)
    finally:
        stop.set()
        caller.join()
    until(1)
    assert set(statuses) == {200}
    serve.delete("scaled")
