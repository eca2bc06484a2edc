"""Progress: how far a command is with rows, as a bar on a terminal and as a few lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from torch import Tensor

BATCH = 250
# Seconds until the first line of a log; from each to the next it is twice as long as before.
FIRST_LINE = 10.0


@contextmanager
def progress(
    what: str, rows: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[Tensor], Iterator[Tensor]]]:
    """Show progress; what it yields splits rows into batches and moves on with each.

    Where the output is no terminal, it is a line after 10 seconds, and then after 20, 40 and so on: an hour has eight.

    Args:
        what: Is being done.
        rows: That there are, of all calls.
        clock: Gives the time in seconds.
    """
    console = Console()
    done, wait, due = 0, FIRST_LINE, clock() + FIRST_LINE
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=rows)

        def batches(x: Tensor) -> Iterator[Tensor]:
            nonlocal done, wait, due
            for batch in x.split(BATCH):
                yield batch
                done += len(batch)
                bar.advance(task, len(batch))
                if not console.is_terminal and clock() >= due:
                    print(f"{what}: {done} of {rows} rows", flush=True)
                    wait *= 2
                    due = clock() + wait

        yield batches
