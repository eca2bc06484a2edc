"""What does serving add to a prediction, when nobody else asks?

    python benchmarks/latency.py

One row at a time, in four ways: `Predictor.predict` called directly; the same call in a thread, as no service on an
event loop can do without; through the batcher, which has that thread; and over HTTP on one connection, timed by wrk.
They take turns in short rounds; medians of the rounds' medians are printed as a Markdown table. Batching, its thread
included, should add less than a tenth of the request. On a machine that is busy otherwise the figures mean nothing:
torch's threads wait for each other.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from service import DUBIO, ROW, binary, checkpoint, load, running

from dubio import models
from dubio.models import Predictor, Work
from dubio.serving.batching import Batcher, Budget, Policy
from dubio.serving.executor import Executor
from dubio.serving.settings import Settings

KINDS = {
    "deterministic": (Work.DETERMINISTIC, ("label", "probabilities")),
    "MC": (Work.MC, ("mc_mean", "mc_std")),
    "MC and flag": (
        Work.FLAG,
        ("label", "probabilities", "mc_mean", "mc_std", "mutual_information", "ood_p_value", "ood_flag"),
    ),
}


async def median(ask: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Of the milliseconds that one call takes."""
    found = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        await ask()
        found.append(1e3 * (time.perf_counter() - began))
    return statistics.median(found)


async def measure(predictor: Predictor, work: Work, seconds: float) -> list[float]:
    """Directly, in a thread, and through the batcher."""
    settings = Settings()
    executor = Executor(threads=settings.prediction_threads, torch_threads=settings.torch_threads)
    budget = Budget(max_rows=settings.max_queue_rows, max_bytes=settings.max_queue_bytes)
    batcher = Batcher(predictor, executor, budget, Policy(settings.max_batch_rows), lambda _: None)
    x = ROW[np.newaxis]

    async def directly() -> None:
        predictor.predict(x, work=work)

    strategies = (
        directly,
        lambda: executor.run(lambda: predictor.predict(x, work=work)),
        lambda: batcher.submit(x, samples=None, work=work, timeout=settings.timeout_seconds),
    )
    try:
        return [await median(way, seconds) for way in strategies]
    finally:
        executor.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of one round of one way")
    arguments = parser.parse_args()
    rounds: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = checkpoint(folder)
        predictor = models.load(path)
        command = [sys.executable, "-m", "dubio.serving", f"mlp={path}", "--port", str(DUBIO), "--log-level", "warning"]
        with running(command, DUBIO, "/v2/health/ready"):
            for index in range(arguments.rounds + 1):
                for kind, (work, outputs) in KINDS.items():
                    seconds = arguments.seconds if index else 1
                    own = asyncio.run(measure(predictor, work, seconds))
                    served = load(binary(kind, outputs), folder, connections=1, seconds=seconds).p50
                    if index:  # the first round warms up
                        rounds[kind].append([*own, served])
    print(f"One row, one caller; p50 in milliseconds, medians of {arguments.rounds} rounds\n")
    print("| request | `Predictor.predict` | in a thread | batched | over HTTP | batching adds | of the request |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind, found in rounds.items():
        direct, thread, batched, served = (statistics.median(column) for column in zip(*found, strict=True))
        added = statistics.median(each[2] - each[0] for each in found)
        print(
            f"| {kind} | {direct:.3f} | {thread:.3f} | {batched:.3f} | {served:.3f} "
            f"| {added:.3f} | {100 * added / served:.0f}% |"
        )


if __name__ == "__main__":
    main()
