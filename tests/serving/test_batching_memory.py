"""What does not fit into memory: predicted in parts, or refused for now; either way the queue goes on."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from dubio import models

UNIT = 1 << 27  # bytes, far above what else a process allocates meanwhile

HUNGRY = f'''
import os, pathlib
import torch
from dubio.models import MLP

class HungryMLP(MLP):
    """An MLP that takes two pieces of memory a row while the file DUBIO_TEST_HUNGER names exists; it writes to none."""

    def forward(self, x):
        if pathlib.Path(os.environ["DUBIO_TEST_HUNGER"]).exists():
            first = torch.empty(len(x), {UNIT}, dtype=torch.uint8)
            second = torch.empty(len(x), {UNIT}, dtype=torch.uint8)
            assert len(first) == len(second)
        return super().forward(x)
'''


class Hungry:
    """A service of whose memory so many pieces are left."""

    def __init__(self, service: Any, hunger: Path) -> None:
        self.service, self.url, self._hunger = service, service.url, hunger
        self._process = service.computing

    def leave(self, pieces: float) -> None:
        """From now on so many pieces of memory are left, and the network takes two a row."""
        self._hunger.touch()
        limit = self._process.memory_info().vms + int(pieces * UNIT)
        self._process.rlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    def ask(self, *requests: np.ndarray) -> list[httpx.Response]:
        """Ask at the same time; one batch holds all that has come."""

        def post(rows: np.ndarray) -> httpx.Response:
            return client.post(f"{self.url}/v1/predict", json={"instances": rows.tolist()})

        with httpx.Client(timeout=60) as client, ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(post, requests))

    def counted(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(httpx.get(f"{self.url}/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


@pytest.fixture(scope="module", params=["process", "thread"])
def hungry(
    request: pytest.FixtureRequest, numbers_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hungry]:
    from tests.serving.command import Command

    folder = tmp_path_factory.mktemp("hungry")
    (folder / "hungry_networks.py").write_text(HUNGRY)
    content = torch.load(numbers_checkpoint, weights_only=True)
    content["dubio"]["network"]["class_path"] = "hungry_networks.HungryMLP"
    torch.save(content, folder / "hungry.ckpt")
    hunger = folder / "hunger"
    environment = {"PYTHONPATH": str(folder), "DUBIO_TEST_HUNGER": str(hunger), "MALLOC_ARENA_MAX": "1"}
    # The loop asks each member for the rows of the request, no more at a time.
    arguments = (str(folder / "hungry.ckpt"), "--trusted", "hungry_networks", "--strategy", "loop")
    options = ("--batch-delay-seconds", "1", "--predict-in", request.param)
    with Command().started(*arguments, *options, **environment) as service:
        hungry = Hungry(service, hunger)
        hungry.ask(*(rows(1, seed) for seed in range(8)))  # all threads are there
        yield hungry


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-4, 4, (count, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def truth(numbers_checkpoint: Path) -> Callable[[np.ndarray], Any]:
    return models.load(numbers_checkpoint).predict


def check(answer: httpx.Response, expected: Any) -> None:
    assert answer.status_code == 200, answer.text
    predictions = answer.json()["predictions"]
    assert len(predictions) == len(expected.label)
    np.testing.assert_allclose([each["mc"]["mean"] for each in predictions], expected.mc_mean, atol=1e-5)
    np.testing.assert_allclose(
        [each["deterministic"]["probabilities"] for each in predictions], expected.probabilities, atol=1e-5
    )
    np.testing.assert_allclose([each["ood"]["p_value"] for each in predictions], expected.p_value, atol=0.05)


def test_a_batch_that_does_not_fit_is_halved_without_what_its_failure_held(hungry: Hungry, truth: Callable) -> None:
    # Of sixteen pieces for eight rows, the first eight fit and the others do not. Half the batch needs eight, too:
    # there is no room for it beside those of the failure.
    hungry.leave(9.5)
    requests = [rows(1, seed) for seed in range(8)]
    for _ in range(3):  # on a busy machine one of them may come too late for the batch
        for request, answer in zip(requests, hungry.ask(*requests), strict=True):
            check(answer, truth(request))
        if "No memory to predict 8 rows at once: " in hungry.service.log:
            break
    assert "No memory to predict 8 rows at once: " in hungry.service.log


def test_a_request_that_does_not_fit_is_computed_in_parts(hungry: Hungry, truth: Callable) -> None:
    hungry.leave(9.5)
    small, large = rows(1, 1), rows(13, 2)
    for request, answer in zip((small, large), hungry.ask(small, large), strict=True):
        check(answer, truth(request))


def test_what_does_not_fit_at_all_is_refused_for_now_and_the_queue_goes_on(hungry: Hungry, truth: Callable) -> None:
    refused = {"name": "dubio_refused_total", "reason": "out_of_memory", "model": "hungry"}
    before = hungry.counted(**refused)
    hungry.leave(1.5)  # the first piece of one row
    for answer in hungry.ask(*(rows(count, count) for count in (1, 2, 3))):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["type"] == "urn:dubio:problem:out-of-memory"
        assert "not enough memory" in answer.json()["detail"]
    assert hungry.counted(**refused) == before + 3
    assert hungry.counted("dubio_waiting_rows") == 0
    hungry.leave(4.5)
    check(hungry.ask(rows(3, 5))[0], truth(rows(3, 5)))
    assert "Traceback" not in hungry.service.log
