"""Batch invariance: what an input gets does not depend, to the last bit, on the inputs that share its batch.

Matrix libraries choose by the number of rows in which order a sum is taken, so that the same row rounds otherwise in
another batch. At some numbers of rows all is as in the others; which ones depends on the network, the processor, the
library and the number of threads. So they are found by comparing when a model is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from dubio.models.prediction import AUTO, Model, Samples
from dubio.uncertainty import DeterministicPass

# Numbers of rows that are compared with blocks of the first, the most telling first.
TRIED_ROWS = (16, 1, 4, 8, 2, 32, 64, 12, 24, 48, 20, 28, 40, 56)
# The same for the members, which run at every number of rows.
TRIED_BATCHES = (16, 1, 2, 5, 64, 33, 3, 8, 15, 7, 12, 17, 48, 63)
# So many are compared although there is no time.
LEAST_TRIED = 4
# So many rows are few.
FEW = 4
# What a network answers.
Answer = Callable[[Tensor], DeterministicPass]


@dataclass(frozen=True)
class BatchSizes:
    """Numbers of rows at which a network gives a row the same bits, whatever its place and the other rows.

    Attributes:
        rows: Increasing; at least one. Batches are filled up to the next, and larger ones are divided.
    """

    rows: tuple[int, ...]

    @classmethod
    def find(cls, answer: Answer, x: Tensor, seconds: float) -> Self:
        """Compare what a network answers at several numbers of rows.

        Where few rows agree with no larger batch, blocks of few are compared as well, so that one row is not filled up
        to many. Where already the place in a batch matters, each row is answered alone.

        Args:
            answer: Of the network, rows to rows.
            x: Different rows; no more are tried.
            seconds: After which no more numbers are tried.
        """
        end = time.perf_counter() + seconds
        large = cls._agreeing(answer, x, TRIED_ROWS[0], end)
        if large and large[0] <= FEW:
            return cls(large)
        small = cls._agreeing(answer, x, FEW, end)
        return cls(small or large or (1,))

    @staticmethod
    def _agreeing(answer: Answer, x: Tensor, most: int, end: float) -> tuple[int, ...]:
        """The numbers of rows that agree with blocks of so many at most, ascending; none where these do not agree."""
        reference = max(size for size in TRIED_ROWS if size <= min(len(x), most))
        x = x[: len(x) - len(x) % reference]
        expected = DeterministicPass.cat([answer(part) for part in x.split(reference)])
        rows = []
        tried = [size for size in TRIED_ROWS if size <= len(x) and size != reference]
        for index, size in enumerate([reference, *tried]):
            if index >= LEAST_TRIED and time.perf_counter() > end:
                break
            part = x[:size]
            turned = answer(part.flip(0)).map(lambda values: values.flip(0))
            if all(_same(each, expected.take(slice(size))) for each in (answer(part), turned)):
                rows.append(size)
            elif size == reference:
                break
        return tuple(sorted(rows))

    def run(self, answer: Answer, x: Tensor) -> DeterministicPass:
        """Answer rows in batches of these sizes."""
        if len(x) <= self.rows[-1]:
            return self._filled(answer, x)
        return DeterministicPass.cat([self._filled(answer, part) for part in x.split(self.rows[-1])])

    def _filled(self, answer: Answer, x: Tensor) -> DeterministicPass:
        rows = len(x)
        missing = next(size for size in self.rows if size >= rows) - rows
        if not rows or not missing:
            return answer(x)
        # With a row that is there, because blank ones may be none that the network takes.
        return answer(torch.cat([x, x[:1].expand(missing, *x.shape[1:])])).take(slice(rows))


def largest_batch(model: Model[Any], x: Tensor, seconds: float) -> int | None:
    """Up to how many rows a model's whole answer to each is the same to the last bit; None where it is not at all.

    Args:
        model: As it would answer.
        x: Different raw rows; no more are tried.
        seconds: After which no larger batches are tried.
    """
    end = time.perf_counter() + seconds
    tried = [size for size in TRIED_BATCHES if size <= len(x)]
    counts: tuple[Samples, ...] = (None, 2, AUTO) if model.asks_adaptively else (None, 2)
    expected = {count: _answers(model, x, tried[0], count) for count in counts}
    largest = tried[0]
    for index, size in enumerate(tried):
        if index >= LEAST_TRIED and time.perf_counter() > end:
            break
        for count in counts:
            prediction = model.predict(x[:size], samples=count)
            turned = model.predict(x[:size].flip(0), samples=count)
            rows = range(size)
            found = [_bits(prediction.rows(row, row + 1)) for row in rows]
            if found != expected[count][:size] or found != [_bits(turned.rows(row, row + 1)) for row in rows][::-1]:
                return None
        largest = max(largest, size)
    return largest


def _answers(model: Model[Any], x: Tensor, block: int, count: Samples) -> list[Any]:
    predictions = [model.predict(part, samples=count) for part in x.split(block)]
    return [_bits(each.rows(row, row + 1)) for each in predictions for row in range(len(each.label))]


def _bits(value: Any) -> Any:
    if is_dataclass(value):
        return [_bits(each) for each in vars(value).values()]
    if isinstance(value, list | tuple):
        return [_bits(each) for each in value]
    return value.tobytes() if isinstance(value, np.ndarray) else value


def _same(found: DeterministicPass, expected: DeterministicPass) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found.tensors(), expected.tensors(), strict=True))
