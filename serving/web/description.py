"""The API's description in bytes, made once for the models that are loaded and again when others are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import ref

import orjson

from dubio.serving.repository.registry import ServedModel


class Description:
    """The description.

    Args:
        describe: Makes it, with examples for some models.
        loaded: All that are.
    """

    def __init__(
        self, describe: Callable[[Sequence[ServedModel]], dict[str, Any]], loaded: Iterable[ServedModel]
    ) -> None:
        self._describe, self._loaded = describe, loaded
        # By whether it has examples: for which models, which it must not keep in memory, and what it says.
        self._made: dict[bool, tuple[tuple[ref[ServedModel], ...], bytes]] = {}
        self._lock = asyncio.Lock()

    async def read(self, *, examples: bool) -> bytes:
        """The description as JSON.

        Args:
            examples: Whether it may name the models and show inputs of theirs.
        """
        models = tuple(self._loaded) if examples else ()
        async with self._lock:  # who comes meanwhile waits for what is being made
            of, content = self._made.get(examples, (None, b""))
            if of != tuple(map(ref, models)):
                content = orjson.dumps(await asyncio.to_thread(self._describe, models))
                self._made[examples] = tuple(map(ref, models)), content
        return content
