"""Callers that leave, and callers that stay."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from dubio.serving.http.disconnects import CancelOnDisconnect


def request(messages: asyncio.Queue[dict[str, object]]) -> Request:
    return Request({"type": "http", "method": "POST", "headers": []}, receive=messages.get)


def test_the_block_is_cancelled_when_the_caller_leaves():
    async def main():
        messages: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        cancelled = asyncio.Event()

        async def work():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async def handler():
            async with CancelOnDisconnect(request(messages)):
                await work()

        task = asyncio.create_task(handler())
        await asyncio.sleep(0.05)
        assert not task.done()
        messages.put_nowait({"type": "http.disconnect"})
        with pytest.raises(ClientDisconnect):
            await task
        assert cancelled.is_set()

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [0.0, 0.06])
def test_a_caller_who_stays_gets_the_answer_and_nothing_is_left_behind(seconds):
    async def main():
        async with CancelOnDisconnect(request(asyncio.Queue())):
            await asyncio.sleep(seconds)
            answer = "answer"
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) == 1
        return answer

    assert asyncio.run(main()) == "answer"


def test_a_cancellation_from_elsewhere_stays_one():
    async def main():
        async def handler():
            async with CancelOnDisconnect(request(asyncio.Queue())):
                await asyncio.sleep(60)

        task = asyncio.create_task(handler())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_errors_of_the_block_come_through():
    async def main():
        with pytest.raises(KeyError):
            async with CancelOnDisconnect(request(asyncio.Queue())):
                raise KeyError("x")

    asyncio.run(main())
