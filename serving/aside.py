"""Keeps long work off the event loop, and short work out of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def aside(long: bool, work: Callable[[], T]) -> T:
    """`work()`, in a thread if it is long: a thread costs more than a millisecond's work is worth."""
    return await asyncio.to_thread(work) if long else work()
