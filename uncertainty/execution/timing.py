"""Timing: what calls cost, on machines that do other things meanwhile."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Clock = Callable[[], float]


@dataclass(frozen=True)
class Clocks:
    """Two clocks, in seconds.

    Attributes:
        wall: For deadlines.
        cost: For what a call costs.
    """

    wall: Clock = time.perf_counter
    cost: Clock = time.perf_counter

    @classmethod
    def of(cls, device: torch.device) -> Clocks:
        """Give those for calls on a device as they run here.

        With one torch thread all of a call's work is done in the thread that calls, whose processor time says what it
        costs whatever else the machine does. (On Windows that time comes in steps of 16 ms.)
        """
        alone = device.type == "cpu" and torch.get_num_threads() == 1 and sys.platform != "win32"
        return cls(cost=time.thread_time) if alone else cls()


class TimeBudget:
    """What measuring may take in all; each part leaves what it does not need to the next.

    Attributes:
        left: Seconds.
    """

    def __init__(self, seconds: float, clock: Clock = time.perf_counter) -> None:
        self.left, self._clock, self._start = seconds, clock, 0.0

    def __enter__(self) -> TimeBudget:
        self._start = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        self.left = max(0.0, self.left - (self._clock() - self._start))


def least_seconds(call: Callable[[], object], device: torch.device, turns: int = 3) -> float:
    """What a call takes at least, in seconds, with the work that it queues on a device; after one that warms up."""
    least = math.inf
    for turn in range(1 + turns):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn:
            least = min(least, time.perf_counter() - start)
    return least
