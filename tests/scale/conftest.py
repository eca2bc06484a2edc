"""Models of every kind of input and a service of them, and what `dubio-score` makes of their rows."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from dubio.scale.cli import main
from dubio.serving.settings import Settings
from tests.serving.conftest import (  # noqa: F401  # fixtures
    numbers_checkpoint,
    pixels_checkpoint,
    serve,
    table_checkpoint,
    text_checkpoint,
)

READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": pl.read_csv,
    ".parquet": pl.read_parquet,
    ".jsonl": pl.read_ndjson,
}
NUMBERS = 5
BY_CLASS = [f"class-{number}" for number in range(4)]


def score(*arguments: object) -> pl.DataFrame:
    """The output of a run that went well."""
    # By name, because finding the fastest strategy takes seconds.
    given = arguments if "--strategy" in arguments else (*arguments, "--strategy", "loop")
    assert main(list(map(str, given))) == 0
    path = Path(str(arguments[2]))
    assert not path.with_name(f"{path.name}.parts").exists()
    return READERS[path.suffix](path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which it is refused."""
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("dubio-score: error: ")
    return line


def same(told: dict[str, Any], answer: dict[str, Any]) -> None:
    """A row of the output is what the service answers, the deterministic part to the last bit."""
    deterministic = np.array([told[f"deterministic.probabilities.{name}"] for name in BY_CLASS], np.float32)
    assert deterministic.tolist() == np.array(answer["deterministic"]["probabilities"], np.float32).tolist()
    assert told["deterministic.label"] == answer["deterministic"]["label"]
    assert told["mc.samples"] == answer["mc"]["samples"]
    for field in ("mean", "std"):
        np.testing.assert_allclose([told[f"mc.{field}.{name}"] for name in BY_CLASS], answer["mc"][field], atol=1e-5)
    for name, value in answer["uncertainty"].items():
        assert told[f"uncertainty.{name}"] == pytest.approx(value, abs=1e-5)
    assert told["ood.p_value"] == pytest.approx(answer["ood"]["p_value"], abs=0.02)
    assert told["ood.level"] == answer["ood"]["level"]
    if told["ood.p_value"] == answer["ood"]["p_value"]:  # what rounding moved is within the promise
        assert told["ood.flagged"] == answer["ood"]["flagged"]
        assert told["ood.reason"] == answer["ood"]["reason"]


@pytest.fixture(scope="session")
def service(
    serve: Callable[[Settings], AbstractContextManager[str]],  # noqa: F811
    numbers_checkpoint: Path,  # noqa: F811
    table_checkpoint: Path,  # noqa: F811
    text_checkpoint: Path,  # noqa: F811
    pixels_checkpoint: Path,  # noqa: F811
) -> Iterator[httpx.Client]:
    """A client of a service with a model of each kind of input."""
    models = tuple(map(str, (numbers_checkpoint, table_checkpoint, text_checkpoint, pixels_checkpoint)))
    given = Settings(models=models, torch_threads=1, strategy="loop")
    with serve(given) as base, httpx.Client(base_url=base, timeout=30) as client:
        yield client


@pytest.fixture
def rows() -> np.ndarray:
    """Thirty rows of five numbers like those of training, and one unlike."""
    x = np.random.default_rng(7).normal(size=(31, NUMBERS)).round(3)
    x[30] = 1e4
    return x


@pytest.fixture(scope="module")
def only_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No other process of these tests has a cluster of Ray meanwhile, which would be found and taken for ours."""
    with (tmp_path_factory.getbasetemp().parent / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
