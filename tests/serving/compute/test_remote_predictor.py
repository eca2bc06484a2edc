"""A model in another process: the same answers to the last bit, and gone there once it is gone here."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubio.models import AUTO, Predictor, Work
from dubio.models.errors import InvalidInput
from dubio.serving.compute.process import ComputeProcess
from dubio.serving.compute.remote_predictor import RemotePredictor
from dubio.serving.repository.engine import Engine
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.source import ModelSource

LOADER = Loader(device="cpu", trusted=(), strategy="loop", trial=False)


@pytest.fixture(scope="module")
def process() -> Iterator[ComputeProcess]:
    process = ComputeProcess(trials=False)
    process.host(Engine(LOADER, few=1, most=1), prepare=int)
    yield process
    process.close()


@pytest.fixture
def remote(process: ComputeProcess, checkpoint: Path) -> RemotePredictor:
    key, facts = process.call("load", ModelSource("bars", checkpoint))
    return RemotePredictor(facts, process, key)


@pytest.fixture(scope="module")
def local(checkpoint: Path) -> Any:
    """The same model in this process."""
    return LOADER.read(ModelSource("bars", checkpoint))


def same(one: Any, other: Any) -> None:
    """All of two predictions, to the last bit."""
    here, there = asdict(one), asdict(other)
    assert here.keys() >= {"label", "probabilities", "monte_carlo", "flags", "label_sets", "decisions"}
    np.testing.assert_equal(here, there)


@pytest.mark.parametrize("asked", [{}, {"samples": 5}, {"samples": AUTO}, {"work": Work.DETERMINISTIC}])
def test_it_says_the_same_to_the_last_bit(
    remote: RemotePredictor, local: Predictor, bars: np.ndarray, asked: dict[str, Any]
) -> None:
    x = bars[:7]
    one, other = remote.predict(x, **asked), local.predict(x, **asked)
    same(one, other)
    if one.flags is not None:
        same(remote.explain(x, one), local.explain(x, other))
    assert remote.committee.num_samples == local.committee.num_samples
    assert remote.facts.card == local.describe()


def test_threads_get_their_own_answers(remote: RemotePredictor, local: Predictor, bars: np.ndarray) -> None:
    expected = [local.predict(row[None]).probabilities for row in bars]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda row: remote.predict(row[None]).probabilities, bars))
    np.testing.assert_array_equal(np.concatenate(answers), np.concatenate(expected))


def test_it_refuses_what_the_model_refuses(remote: RemotePredictor, local: Predictor, bars: np.ndarray) -> None:
    for x, asked in ((bars[:, :, :3], {}), (bars, {"samples": 1000}), (np.full_like(bars, np.nan), {})):
        with pytest.raises(InvalidInput) as there:
            remote.predict(x, **asked)
        with pytest.raises(InvalidInput) as here:
            local.predict(x, **asked)
        assert str(there.value) == str(here.value)


def test_a_call_that_is_answered_while_it_is_closed_leaves_no_connection() -> None:
    process = ComputeProcess(trials=False)
    process.host(Engine(LOADER, few=1, most=1), prepare=int)
    connection = process.connect()
    process.close()
    process._give_back(connection)
    assert connection.fileno() == -1


def test_the_model_goes_when_nobody_holds_it(process: ComputeProcess, checkpoint: Path, bars: np.ndarray) -> None:
    key, facts = process.call("load", ModelSource("bars", checkpoint))
    held = RemotePredictor(facts, process, key)
    held.predict(bars)
    del held
    gc.collect()
    until = time.monotonic() + 60
    while True:
        try:
            process.call("predict", key, bars, None, Work.FLAG)
        except KeyError:
            break
        assert time.monotonic() < until
