from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dubio.training import Digits
from dubio.training.callbacks.processes import Processes
from dubio.training.splits import duplicates
from dubio.training.splits.shares import Share


def drawn(rank: int, count: int) -> list[float]:
    """What a process draws after the callback, begun with the same seed."""
    trainer: Any = SimpleNamespace(world_size=count, global_rank=rank, is_global_zero=rank == 0, datamodule=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        Processes(print).setup(trainer, None, "fit")  # type: ignore[arg-type]
        return torch.rand(3).tolist()


def test_each_process_draws_numbers_of_its_own_and_the_first_what_it_would_alone():
    assert drawn(0, 1) == drawn(0, 2)
    assert len({tuple(drawn(rank, 3)) for rank in range(3)}) == 3
    assert drawn(1, 2) == drawn(1, 2)


def test_the_first_process_tells_of_rows_that_repeat(monkeypatch: pytest.MonkeyPatch):
    data = Digits()
    data.share = Share(0, 2)
    data._division = Digits().division  # as it is once the processes have talked
    monkeypatch.setattr(duplicates, "told", lambda division: f"{len(division.digests['train'])} rows")
    for rank, due in ((0, [f"{len(data.division.digests['train'])} rows"]), (1, [])):
        said: list[str] = []
        trainer: Any = SimpleNamespace(world_size=2, global_rank=rank, is_global_zero=rank == 0, datamodule=data)
        with torch.random.fork_rng(devices=[]):
            Processes(said.append).setup(trainer, None, "fit")  # type: ignore[arg-type]
        assert said == due
