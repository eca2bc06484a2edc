"""Progress: how far a job is, how fast, and how long it will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

# Seconds until the first line of a log; from each to the next it is twice as long as before.
FIRST_LINE = 10.0


class RateColumn(ProgressColumn):
    """Rows a second, of late."""

    def render(self, task: Task) -> Text:
        """The rate; nothing before it is known."""
        return Text("" if not task.speed else f"{task.speed:,.0f} rows/s")


@contextmanager
def progress(total: int, done: int = 0, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[int], None]]:
    """Show progress on stderr: a bar on a terminal, elsewhere a line after 10 seconds, then after 20, 40 and so on.

    Args:
        total: Rows that there are.
        done: Those that were scored before.
        clock: Gives the time in seconds.

    Yields:
        What to call with the number of rows that have been scored since.
    """
    console = Console(stderr=True)
    began, scored, wait = clock(), 0, FIRST_LINE
    due = began + wait
    columns = (TextColumn("Scoring"), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, completed=done)

        def advance(rows: int) -> None:
            nonlocal scored, wait, due
            scored += rows
            bar.advance(task, rows)
            if not console.is_terminal and (now := clock()) >= due and now > began:
                rate = scored / (now - began)
                left = (total - done - scored) / rate if rate else 0
                line = f"{done + scored} of {total} rows, {rate:,.0f} rows/s, {tell_time(left)} left"
                print(f"dubio-score: {line}", file=sys.stderr, flush=True)
                wait *= 2
                due = now + wait

        yield advance


def tell_time(seconds: float) -> str:
    """Hours, minutes and seconds, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
