"""Watches the models on disk."""

from __future__ import annotations

import asyncio
import logging

from serving.repository.repository import ModelRepository

_log = logging.getLogger("dubio")


async def watch(repository: ModelRepository, seconds: float) -> None:
    """Let the repository look for changes every so many seconds, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await repository.look()
        except Exception:  # whatever it is, what serves goes on, and the next look may succeed
            _log.exception("Could not look for changed models; trying again in %g s.", seconds)
