"""A predictor that can be held up, and questions for the batcher in front of it."""

from __future__ import annotations

import asyncio
import threading

import numpy as np

from dubio.models import Prediction, Work
from dubio.serving.batching import Batcher, BatchRecord, Budget, Policy
from dubio.serving.executor import Executor


class Gate:
    """A real predictor that can be held up, and that remembers what it was asked."""

    def __init__(self, predictor):
        self.predictor = predictor
        self.committee = predictor.committee
        self.input = predictor.input
        self.calls: list[tuple[int, int | None, Work]] = []
        self.reached, self.open = threading.Event(), threading.Event()
        self.open.set()

    def predict(self, x, *, samples=None, work=Work.FLAG):
        self.reached.set()
        self.open.wait(10)
        self.calls.append((len(x), samples, work))
        return self.predictor.predict(x, samples=samples, work=work)


def rows(gate, count, seed=0):
    spec = gate.input
    return np.random.default_rng(seed).uniform(spec.low, spec.high, (count, *spec.shape)).astype(np.float32)


def run(scenario, gate, *, policy=None, budget=None):
    """Run `scenario(batcher, records)` on a loop of its own; returns what it returns."""
    records: list[BatchRecord] = []

    async def main():
        executor = Executor(threads=2, torch_threads=1)
        batcher = Batcher(gate, executor, budget or Budget(1000, 10**9), policy or Policy(64), records.append)
        try:
            return await scenario(batcher, records)
        finally:
            gate.open.set()
            executor.close()

    return asyncio.run(main())


def ask(batcher, x, *, samples=None, work=Work.FLAG, timeout=None):
    return asyncio.create_task(batcher.submit(x, samples=samples, work=work, timeout=timeout))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def same(answer: Prediction, expected: Prediction):
    assert answer.samples == expected.samples
    np.testing.assert_array_equal(answer.label, expected.label)
    np.testing.assert_allclose(answer.mc_mean, expected.mc_mean, atol=1e-5)
    np.testing.assert_allclose(answer.mc_std, expected.mc_std, atol=1e-5)
    np.testing.assert_allclose(answer.p_value, expected.p_value, atol=0.05)
