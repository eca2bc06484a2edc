"""The interval of a measured rate: which true rates a count does not refute."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch


def clopper_pearson(count: int, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a rate, of which `count` of `rows` independent rows were a draw.

    Args:
        count: Rows of the kind that is counted.
        rows: All of them, at least one.
        confidence: How often, at least, such an interval holds the true rate; either side is missed equally often.

    Source: Clopper and Pearson 1934.
    """
    if not 0 <= count <= rows or rows < 1:
        raise ValueError(f"Expected a count from 0 to the number of rows, at least 1, but got {count} of {rows}.")
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else _solve(lambda rate: _binomial(count, rows, rows, rate) > tail)
    high = 1.0 if count == rows else _solve(lambda rate: _binomial(0, count, rows, rate) < tail)
    return low, high


def binomial_at_most(count: int, rows: int, rate: float) -> float:
    """P(Binomial(rows, rate) <= count)."""
    return 1.0 if count >= rows else _binomial(0, count, rows, rate)


def largest_count(rows: int, rate: float, tail: float) -> int:
    """The largest count with P(Binomial(rows, rate) <= count) <= tail; -1 if there is none."""
    first, chance_k = _binomials(0, rows, rows, rate)
    return first - 1 + int(torch.searchsorted(chance_k.cumsum(0), tail, right=True))


def _binomial(first: int, last: int, rows: int, rate: float) -> float:
    """P(first <= Binomial(rows, rate) <= last), but for what is farther than 12 deviations from the mean."""
    return float(_binomials(first, last, rows, rate)[1].sum())


def _binomials(first: int, last: int, rows: int, rate: float) -> tuple[int, torch.Tensor]:
    """The first count of a range and the probabilities of all, without those beyond 12 deviations from the mean."""
    mean, far = rows * rate, 12 * math.sqrt(rows * rate * (1 - rate)) + 40
    first, last = max(first, math.floor(mean - far)), min(last, math.ceil(mean + far))
    k = torch.arange(first, max(first, last + 1), dtype=torch.float64)
    n, p = (torch.tensor(value, dtype=torch.float64) for value in (rows, rate))
    choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return first, (choose + torch.xlogy(k, p) + torch.xlogy(n - k, 1 - p)).exp()


def _solve(beyond: Callable[[float], bool]) -> float:
    """Where a condition that only large rates fulfil begins."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high
