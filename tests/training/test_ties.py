"""Where rows repeat, scores tie: the promise holds for requests of any size, although every batch rounds otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from dubio.models import AUTO, MLP, InputSpec, NetworkSpec, Predictor
from dubio.training import CalibrationSettings, calibrate
from dubio.training.data.module import TensorDataModule
from dubio.uncertainty.detection.conformal import level

KINDS, COLUMNS, LEVELS = 10, 4, 3
ROWS = 1000  # to calibrate on, and to select on
EQUAL = np.full(KINDS, 1 / KINDS)
UNEQUAL = np.array([0.5, 0.2, 0.1, 0.06, 0.04, 0.03, 0.025, 0.02, 0.015, 0.01])
REQUESTS = [(None, 1), (None, 250), (AUTO, 1), (AUTO, 250)]

Draw = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Population:
    """Rows to draw from, and a network that was trained on some."""

    draw: Draw
    network: nn.Module
    spec: NetworkSpec
    input: InputSpec
    train: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, draw: Draw) -> Population:
        x, labels = draw(2000, np.random.default_rng(1))
        mean, std = x.mean(0), np.maximum(x.std(0), 1e-3)
        arguments = {"in_features": x.shape[1], "widths": [32, 32], "num_classes": 2, "rates": [0.3, 0.3]}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = MLP(**arguments)
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
            for _ in range(100):
                optimizer.zero_grad()
                logits = network(torch.from_numpy((x - mean) / std).float())
                nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
                optimizer.step()
        shape = {"mean": tuple(map(float, mean)), "std": tuple(map(float, std)), "shape": (x.shape[1],)}
        spec = InputSpec(kind="numbers", low=float(x.min()), high=float(x.max()), **shape)
        network_spec = NetworkSpec(class_path="dubio.models.MLP", init_args=arguments)
        return cls(draw, network.eval().requires_grad_(False), network_spec, spec, (x, labels))

    def calibrated(self, seed: int) -> Predictor:
        """Calibrated on fresh rows."""
        generator = np.random.default_rng([2, seed])
        rows = {"train": self.train, **{name: self.draw(ROWS, generator) for name in ("select", "calibration")}}
        rows["validation"] = tuple(values[:0] for values in self.train)
        data = SimpleNamespace(
            input=self.input,
            classes=("no", "yes"),
            title="drawn",
            public=False,
            trained=None,
            splits={name: SimpleNamespace(x=x, labels=labels) for name, (x, labels) in rows.items()},
            raw=lambda name: tuple(map(torch.from_numpy, rows[name])),
            load=lambda: SimpleNamespace(rows={"train": np.arange(len(self.train[1]))}),
        )
        settings = CalibrationSettings(num_samples=16, stages=(4, 8))
        return calibrate(self.network, self.spec, cast("TensorDataModule", data), settings, measure_seconds=0.05)


def kinds(shares: np.ndarray) -> tuple[np.ndarray, Draw]:
    """Ten kinds of rows of a table of categories, one-hot; and how rows are drawn, the label by chance."""
    generator = np.random.default_rng(0)
    codes = generator.choice(LEVELS**COLUMNS, KINDS, replace=False)
    categories = codes[:, None] // LEVELS ** np.arange(COLUMNS) % LEVELS
    x = np.eye(LEVELS, dtype=np.float32)[categories].reshape(KINDS, -1)
    chance = generator.uniform(size=KINDS)

    def draw(rows: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        kind = generator.choice(KINDS, rows, p=shares)
        return x[kind], (generator.uniform(size=rows) < chance[kind]).astype(np.int64)

    return x, draw


def rate(predictor: Predictor, x: np.ndarray, shares: np.ndarray, samples: object, size: int) -> float:
    """The true false-alarm rate: every kind counts with its share, by how often it is flagged in such requests."""
    kind = np.arange(KINDS) if size == 1 else np.random.default_rng(3).permutation(np.repeat(np.arange(KINDS), 100))
    parts = [predictor.predict(torch.from_numpy(x[part]), samples=samples).flagged for part in batched(kind, size)]
    flagged = np.concatenate(parts)
    return float(sum(shares[each] * flagged[kind == each].mean() for each in range(KINDS)))


def batched(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[first : first + size] for first in range(0, len(rows), size))


@pytest.fixture(scope="module")
def equal() -> Population:
    return Population.of(kinds(EQUAL)[1])


@pytest.mark.parametrize("seed", range(3))
def test_no_kind_of_row_is_flagged_where_all_are_as_frequent(equal: Population, seed: int):
    # A kind would have to be rarer than 39 of 1000 rows; of share 1/10 it is so with this probability.
    alarms = round(level(ROWS, 0.05, 0.05) * (ROWS + 1))
    assert KINDS * binom.cdf(alarms, ROWS, 1 / KINDS) < 1e-11
    predictor, (x, _) = equal.calibrated(seed), kinds(EQUAL)
    assert [rate(predictor, x, EQUAL, samples, size) for samples, size in REQUESTS] == [0.0] * 4
    assert predictor.predict(torch.from_numpy(x[:1]) * 50).flagged.all()


@pytest.mark.slow
@pytest.mark.parametrize("shares", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_the_promise_holds_for_kinds_of_rows(shares: np.ndarray):
    x, draw = kinds(shares)
    population, draws = Population.of(draw), 200
    rates = []
    for seed in range(draws):
        predictor = population.calibrated(seed)
        rates.append([rate(predictor, x, shares, samples, size) for samples, size in REQUESTS])
    above = (np.array(rates) > 0.05 + 1e-9).sum(0)
    assert (above <= binom.ppf(0.9999, draws, 0.05)).all()
    assert predictor.predict(torch.from_numpy(x) * 50).flagged.all()  # it is not kept by flagging nothing


@pytest.mark.slow
def test_the_promise_holds_for_rows_that_never_repeat():
    centres = 0.7 * np.random.default_rng(0).normal(size=(2, 12))

    def draw(rows: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        labels = generator.integers(2, size=rows)
        return (centres[labels] + generator.normal(size=(rows, 12))).astype(np.float32), labels

    population, draws, fresh = Population.of(draw), 200, 4000
    x = torch.from_numpy(draw(fresh, np.random.default_rng(4))[0])
    rates = []
    for seed in range(draws):
        predictor = population.calibrated(seed)
        parts = [
            [predictor.predict(part, samples=samples).flagged for part in x.split(250)] for samples in (None, AUTO)
        ]
        rates.append([np.concatenate(part).mean() for part in parts])
    # Three standard errors of a share alpha among the fresh rows are granted.
    noise = 3 * np.sqrt(0.05 * 0.95 / fresh)
    assert ((np.array(rates) > 0.05 + noise).sum(0) <= binom.ppf(0.9999, draws, 0.05)).all()
    # The mean rate is the law's but for what the fresh rows happen to be, so that little is given away.
    alarms = round(level(ROWS, 0.05, 0.05) * (ROWS + 1))
    assert np.mean(rates, axis=0) == pytest.approx(alarms / (ROWS + 1), abs=0.009)
