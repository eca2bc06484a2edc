"""Which shadows run: those of the newest version, until their files or that version change."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubio.models import Predictor
from dubio.serving.errors import PromotionRefused, UnknownShadow
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.registry import ServedModel
from dubio.serving.repository.repository import ModelRepository, ModelSource
from dubio.serving.shadow.comparison import Comparison, Pair, Rows
from dubio.serving.shadow.shadow import Standing
from dubio.serving.shadow.shadows import Shadows


class Recorder:
    """In the place of a shadow: notes what it is offered, and runs nothing."""

    def __init__(self, live: ServedModel, source: ModelSource) -> None:
        self.live, self.source, self.stamp = live, source, source.stamp()
        self.standing, self.reason, self.closed = Standing.RUNNING, "", False
        self.offered: list[Any] = []

    def offer(self, *request: Any) -> None:
        self.offered.append(request)
        raise RuntimeError("which fails no request")

    def compare(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True


def put(checkpoint: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(checkpoint, folder / "part")
    return (folder / "part").rename(folder / "model.ckpt")


@pytest.fixture
def root(tmp_path: Path, numbers_checkpoint: Path) -> Path:
    put(numbers_checkpoint, tmp_path / "models" / "row" / "1")
    return tmp_path / "models"


@pytest.fixture
def repository(root: Path, checkpoint: Path) -> Iterator[ModelRepository]:
    named = [ModelSource("bars", checkpoint)]
    repository = ModelRepository(named, Loader(device="cpu", trusted=(), strategy="loop", trial=False), root=root)
    yield repository
    repository.close()


def test_shadows_come_and_go_with_their_files_and_their_model(
    repository: ModelRepository, root: Path, numbers_checkpoint: Path, predictor: Predictor
) -> None:
    started: list[Recorder] = []

    def start(live: ServedModel, source: ModelSource) -> Any:
        started.append(Recorder(live, source))
        return started[-1]

    shadows = Shadows(repository, root, start)
    for name in ("row/2.shadow", "row/3.shadow", "row/0.shadow", "row/x.shadow", "bars/2.shadow", "nobody/2.shadow"):
        put(numbers_checkpoint, root / name)
    repository.load()
    [shadow] = started  # of what is served from the directory, the highest
    assert (shadow.source.version, shadow.live) == ("3", repository.get("row"))
    assert shadows.keys() == [("row", "3")]
    with pytest.raises(UnknownShadow, match="'bars' has none"):
        shadows.get("bars")
    shadows.reconcile()
    assert len(started) == 1

    inputs = np.zeros((1, 5), np.float32)
    prediction = repository.get("row").predictor.predict(inputs)
    shadows.offer(repository.get("row"), inputs, prediction, 0.1)
    shadows.offer(repository.get("bars"), inputs, prediction, 0.1)
    shadows.offer(ServedModel("row", "1", predictor), inputs, prediction, 0.1)  # one that was swapped out
    assert len(shadow.offered) == 1

    put(numbers_checkpoint, root / "row" / "3.shadow")  # another file
    shadows.reconcile()
    assert shadow.closed
    assert len(started) == 2
    put(numbers_checkpoint, root / "row" / "2")  # another version answers
    asyncio.run(repository.load_model("row"))
    assert started[1].closed
    assert (len(started), started[2].live.version) == (3, "2")
    shutil.rmtree(root / "row" / "3.shadow")
    asyncio.run(repository.reload())
    assert started[2].closed
    assert started[3].source.version == "2"
    with pytest.raises(PromotionRefused, match="higher version than 2"):
        asyncio.run(shadows.promote("row", force=True))
    shadows.close()
    assert started[3].closed
    shadows.reconcile()
    assert len(started) == 4


def test_a_folder_that_cannot_be_renamed_stays(
    repository: ModelRepository, root: Path, numbers_checkpoint: Path
) -> None:
    shadows = Shadows(repository, root, Recorder)  # type: ignore[arg-type]
    put(numbers_checkpoint, root / "row" / "2.shadow")
    repository.load()
    (root / "row" / "2").mkdir()
    with pytest.raises(PromotionRefused, match="there is one; remove it"):
        asyncio.run(shadows.promote("row", force=True))
    (root / "row" / "2").rmdir()
    shutil.rmtree(root / "row" / "2.shadow")
    with pytest.raises(PromotionRefused, match="rename it yourself"):
        asyncio.run(shadows.promote("row", force=True))
    with pytest.raises(PromotionRefused, match="still being loaded"):
        asyncio.run(shadows.promote("row", force=False))


class Convinced(Recorder):
    """One that has compared enough."""

    def compare(self) -> Comparison:
        pair = Pair("row", ("1", "a" * 64), ("2", "b" * 64), margin=0.05, epsilon=0.05)
        return pair.begin().observe(Rows([False] * 400, [False] * 400, [False] * 400, 0.1, 0.1))


def test_what_was_compared_is_promoted_and_nothing_else(
    repository: ModelRepository, root: Path, numbers_checkpoint: Path
) -> None:
    shadows = Shadows(repository, root, Convinced)  # type: ignore[arg-type]
    put(numbers_checkpoint, root / "row" / "2.shadow")
    repository.load()
    shadow = shadows.get("row")
    put(numbers_checkpoint, root / "row" / "2.shadow")  # after the evidence, and before anybody looked again
    with pytest.raises(PromotionRefused, match="files of version 2 that were compared, but they have changed"):
        asyncio.run(shadows.promote("row", force=False))
    assert (root / "row" / "2.shadow").is_dir()
    assert repository.get("row") is shadow.live
    shadows.reconcile()
    assert shadow.closed
    assert asyncio.run(shadows.promote("row", force=False)) == "2"
    assert repository.get("row").version == "2"
    shadows.close()
