"""A store over SQLite and over a real PostgreSQL, and answers of a real model to keep."""

from __future__ import annotations

import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from dubio.models import Predictor
from dubio.serving.repository.registry import ServedModel
from dubio.serving.store.database import Database, locate, of_file
from dubio.serving.store.retention import Retention
from dubio.serving.store.store import Keeping, Store
from tests.serving.store.postgres import Postgres, find_programs, running

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    programs = find_programs()
    if programs is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip(
            "PostgreSQL or its driver is not installed: apt-get install postgresql, pip install psycopg[binary]"
        )
    with running(programs) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> sa.URL:
    """Of an empty database."""
    if request.param == "sqlite":
        return of_file(tmp_path / "runs" / "store.sqlite")
    return locate(request.getfixturevalue("postgres").create(f"d{next(_NUMBERS)}"))


class Counts:
    """What a store told of."""

    written = 0
    dropped = 0

    def write(self, rows: int) -> None:
        self.written += rows

    def drop(self, rows: int) -> None:
        self.dropped += rows


@pytest.fixture
def counts() -> Counts:
    """What the store of the test told of."""
    return Counts()


@pytest.fixture
def open_store(counts: Counts) -> Iterator[Callable[..., Store]]:
    """Makes stores that are closed after the test."""
    stores: list[Store] = []

    def make(url: sa.URL, *, started: bool = True, **given: Any) -> Store:
        keeping = {"stored_input": "input", "share": 0.0, "retention": Retention(30, 2**30), "most_rows": 10_000}
        keeping |= {"most_bytes": 2**26} | given
        stores.append(Store(Database(url), Keeping(**keeping), counts.write, counts.drop))
        if started:
            stores[-1].start()
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(url: sa.URL, open_store: Callable[..., Store]) -> Store:
    """One that is empty."""
    return open_store(url)


@pytest.fixture(scope="session")
def served(predictor: Predictor) -> ServedModel:
    """The model of bars."""
    return ServedModel("bars", "1", predictor)


@pytest.fixture(scope="session")
def strangers() -> np.ndarray:
    """Images that the model of bars flags, all of them different."""
    return np.random.default_rng(5).uniform(100, 200, (40, 1, 8, 8)).round().astype(np.float32)


@pytest.fixture
def fill(served: ServedModel, strangers: np.ndarray) -> Callable[..., None]:
    """Keeps requests of flagged rows, and waits until they are on disk."""

    def fill(store: Store, *request_ids: str, rows: int = 1) -> None:
        for number, request_id in enumerate(request_ids):
            x = np.roll(strangers, -number, axis=0)[:rows]
            done = store.record(served, x, served.predictor.predict(x), request_id=request_id, everything=True)
            assert done is not None
            assert done.result(20)
            time.sleep(0.002)  # so that the times differ

    return fill
