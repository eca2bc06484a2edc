"""What may pass is tried again after 1, 2, 4 looks and so on; what is the file's fault is not."""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import sys
from pathlib import Path

import pytest
import torch

from dubio.models.errors import ModelError, NotEnoughMemory, UnreadableCheckpoint
from dubio.serving.errors import SelfTestFailed
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.registry import State
from dubio.serving.repository.repository import ModelRepository, ModelSource
from dubio.serving.repository.retries import LONGEST_WAIT, Retries, passes

KEY = ("a", "1")

GREEDY = """
import os
import torch
from dubio.models import MLP

class GreedyMLP(MLP):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        if os.path.exists(os.environ["DUBIO_TEST_GREED"]):
            torch.empty(2**60, dtype=torch.uint8)
"""


def _looks_until_due(retries: Retries) -> int:
    return next(look for look in range(1, 1000) if retries.due(KEY))


def test_failures_in_a_row_wait_ever_longer_up_to_a_bound() -> None:
    retries = Retries()
    assert not retries.due(KEY)
    waits = []
    for _ in range(9):
        retries.failed(KEY, MemoryError())
        waits.append(_looks_until_due(retries))
    assert waits == [1, 2, 4, 8, 16, 32, 64, LONGEST_WAIT, LONGEST_WAIT]
    retries.forget(KEY)
    assert not retries.due(KEY)
    retries.failed(KEY, MemoryError())
    assert _looks_until_due(retries) == 1


def test_a_fault_of_the_file_ends_the_retries() -> None:
    retries = Retries()
    retries.failed(KEY, MemoryError())
    retries.failed(KEY, UnreadableCheckpoint("a.ckpt", "is damaged."))
    assert not any(retries.due(KEY) for _ in range(100))


def test_what_may_pass_is_told_from_what_will_not() -> None:
    unopened = UnreadableCheckpoint("a.ckpt", "cannot be opened: Too many open files.")
    unopened.__cause__ = OSError(errno.EMFILE, "Too many open files")
    crowded = NotEnoughMemory("a.ckpt", MemoryError())
    crowded.__cause__ = MemoryError()
    for error in (unopened, crowded, OSError(errno.ENOSPC, "No space left on device")):
        assert passes(error)
    for error in (UnreadableCheckpoint("a", "no such file"), SelfTestFailed("no"), OSError(errno.EACCES, "denied")):
        assert not passes(error)


@pytest.fixture
def greed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While this file exists, `greedy_networks.GreedyMLP` asks for more memory than there is."""
    (tmp_path / "greedy_networks.py").write_text(GREEDY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "greedy_networks", raising=False)
    monkeypatch.setenv("DUBIO_TEST_GREED", str(tmp_path / "greed"))
    return tmp_path / "greed"


def test_a_model_that_found_no_memory_is_taken_up_at_the_next_look_that_finds_some(
    numbers_checkpoint: Path, greed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "models" / "greedy" / "1"
    folder.mkdir(parents=True)
    content = torch.load(numbers_checkpoint, weights_only=True)
    content["dubio"]["network"]["class_path"] = "greedy_networks.GreedyMLP"
    torch.save(content, folder / "model.ckpt")
    damaged = tmp_path / "models" / "damaged" / "1"
    shutil.copytree(folder, damaged)
    (damaged / "model.ckpt").write_bytes(b"PK nonsense")
    greed.touch()
    repository = ModelRepository(
        [],
        Loader(device="cpu", trusted=["greedy_networks"], strategy="vmap"),
        root=tmp_path / "models",
        control="poll",
    )
    repository.load()
    caplog.clear()

    def tried() -> int:
        return sum("model greedy" in line for line in caplog.messages)

    def look() -> None:
        asyncio.run(repository.look())

    with caplog.at_level(logging.WARNING, "dubio"):
        states = {state.name: state for state in repository.index()}
        assert states["greedy"].state is State.UNAVAILABLE
        assert "not enough memory to load it; the file may be fine" in states["greedy"].reason
        assert str(tmp_path) not in states["greedy"].reason
        attempts = []
        for _ in range(7):
            look()
            attempts.append(tried())
        assert attempts == [1, 1, 2, 2, 2, 2, 3]
        assert not any("model damaged" in line for line in caplog.messages)
        greed.unlink()
        for _ in range(8):
            look()
    assert repository.get("greedy").version == "1"
    assert repository.index()[-1].reason == ""
    repository.close()


def test_an_operator_is_told_at_the_start_what_is_wanting(
    numbers_checkpoint: Path, greed: Path, tmp_path: Path
) -> None:
    content = torch.load(numbers_checkpoint, weights_only=True)
    content["dubio"]["network"]["class_path"] = "greedy_networks.GreedyMLP"
    torch.save(content, tmp_path / "greedy.ckpt")
    greed.touch()
    source = ModelSource("greedy", tmp_path / "greedy.ckpt")
    repository = ModelRepository([source], Loader(device="cpu", trusted=["greedy_networks"]))
    with pytest.raises(
        NotEnoughMemory, match=r"greedy\.ckpt: there is not enough memory .* can't allocate memory"
    ) as seen:
        repository.load()
    assert isinstance(seen.value, ModelError)
    assert not isinstance(seen.value, UnreadableCheckpoint)
    repository.close()
