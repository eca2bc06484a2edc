from __future__ import annotations

import asyncio
import threading

from serving.aside import aside


def test_long_work_leaves_the_loops_thread_and_short_work_does_not() -> None:
    here = threading.get_ident()
    assert asyncio.run(aside(False, threading.get_ident)) == here
    assert asyncio.run(aside(True, threading.get_ident)) != here
