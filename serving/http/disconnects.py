"""Callers that leave: their work is dropped before it is computed."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.requests import ClientDisconnect, Request

# Most answers are ready sooner; only a request that waits longer pays for being watched.
_UNWATCHED_SECONDS = 0.02


class CancelOnDisconnect:
    """Cancels the block when the caller of a request, whose body was read, disconnects.

    Raises:
        ClientDisconnect: the caller left; nobody waits for an answer.
    """

    def __init__(self, request: Request) -> None:
        """Nothing happens before the block is entered."""
        self._request = request
        self._left = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        """Begin to watch, a little later."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        self._timer = loop.call_later(_UNWATCHED_SECONDS, self._watch, task)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching; what the watcher cancelled becomes ClientDisconnect."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._left and isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            raise ClientDisconnect from error

    def _watch(self, waiting: asyncio.Task[object]) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._cancel_when_left(waiting))

    async def _cancel_when_left(self, waiting: asyncio.Task[object]) -> None:
        # The body was read, so the next message can only be that the caller left.
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._left = True
        waiting.cancel()
