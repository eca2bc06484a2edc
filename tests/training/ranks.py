"""Several processes that talk, forked from the one of the tests."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed

SECONDS = 60


def _enter(rank: int, count: int, meeting: str, work: Callable[[int], Any], told: Any) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=count, timeout=timedelta(seconds=SECONDS)
        )
        told.put((rank, "gave", work(rank)))
    except BaseException as error:
        told.put((rank, type(error).__name__, f"{error}\n{traceback.format_exc()}"))


def together(work: Callable[[int], Any], count: int = 2, answers: int | None = None) -> list[tuple[str, Any]]:
    """What each of so many processes gives: `gave` and the value, or the name of an error and what it said.

    Args:
        work: What each does; takes its rank.
        count: How many there are.
        answers: How many are waited for, where some are killed; by default those of all.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        told = context.Queue()
        meeting = str(Path(folder) / "meeting")
        processes = [context.Process(target=_enter, args=(rank, count, meeting, work, told)) for rank in range(count)]
        for process in processes:
            process.start()
        try:
            got = [told.get(timeout=SECONDS) for _ in range(count if answers is None else answers)]
        finally:
            for process in processes:
                process.kill()
                process.join()
    return [(kind, value) for _, kind, value in sorted(got)]
