"""What a shadow may take of the processors."""

from __future__ import annotations


class CPUBudget:
    """So many processor seconds a second, of which those of one second may be saved up.

    Args:
        rate: Processor seconds a second.
        now: In seconds, by any clock that is asked again later.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate, self._credit, self._now = rate, 0.0, now

    def spend(self, seconds: float, now: float) -> None:
        """So many processor seconds were taken."""
        self._credit = self._at(now) - seconds
        self._now = now

    def wait(self, now: float) -> float:
        """How many seconds to wait until something may be taken again; 0 if it may be at once."""
        return max(0.0, -self._at(now)) / self._rate

    def _at(self, now: float) -> float:
        return min(self._rate, self._credit + self._rate * (now - self._now))
