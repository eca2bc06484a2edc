from __future__ import annotations

import asyncio

import pytest

from serving.repository.watcher import watch


class Restless:
    """A repository whose every other look fails."""

    def __init__(self) -> None:
        self.looks = 0
        self.enough = asyncio.Event()

    async def look(self) -> None:
        self.looks += 1
        if self.looks == 4:
            self.enough.set()
        if self.looks % 2:
            raise OSError("the disk is away")


def test_it_looks_until_it_is_cancelled_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> int:
        repository = Restless()
        watching = asyncio.create_task(watch(repository, 0.001))
        await asyncio.wait_for(repository.enough.wait(), 30)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        return repository.looks

    assert asyncio.run(run()) >= 4
    assert "Could not look for changed models; trying again" in caplog.text
