"""What rows can promise, against scipy's Beta distribution; a promise that is said to be possible is one."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import beta

from dubio.training import promise
from dubio.training.data.module import FractionDataModule, TensorDataModule
from dubio.training.splits.dataset import Dataset, Examples
from dubio.uncertainty.errors import CalibrationSetTooSmall


class Few(FractionDataModule):
    title = "few"

    def __init__(self, rows: int = 300, **settings) -> None:
        super().__init__(**settings)
        self.rows = rows

    def read(self) -> Dataset:
        examples = Examples(np.arange(2 * self.rows, dtype=np.float32).reshape(-1, 2), np.arange(self.rows) % 2)
        return Dataset.of_numbers(examples.divide(self.divide(examples.labels, ("a", "b"))), ("a", "b"))


def refused(data: TensorDataModule, alpha: float = 0.05, delta: float = 0.05) -> str:
    with pytest.raises(CalibrationSetTooSmall) as caught:
        promise.require(data, alpha, delta)
    (note,) = caught.value.__notes__
    return note


def test_the_refusal_says_what_300_rows_can_promise():
    note = refused(Few())
    assert "what 300 rows can promise, with confidence 95%" in note
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in note.splitlines() if "│" in line]
    assert rows[:3] == [
        ["0.12 (now)", "0.60 (now)", "36", "0.08"],
        ["0.15", "0.57", "45", "0.065"],
        ["0.2", "0.52", "60", "0.049"],
    ]
    for _, _, count, alpha in rows:
        exact = beta.ppf(0.95, 1, int(count))
        assert exact <= float(alpha) < exact + 0.001
    assert note.endswith(
        "set `--calibration.alpha 0.08`, or train anew with `--data.calibration 0.2 --data.train 0.52`"
    )


@pytest.mark.parametrize("rows", [150, 191, 290, 333, 480])
def test_what_is_advised_is_possible(rows: int):
    note = refused(Few(rows))
    alpha, *fractions = map(float, re.findall(r"--[a-z.]+ ([\d.]+)", note.splitlines()[-1]))
    promise.require(Few(rows), alpha, 0.05)
    if fractions:
        promise.require(Few(rows, calibration=fractions[0], train=fractions[1]), 0.05, 0.05)


def test_what_no_share_can_promise_needs_more_rows():
    note = refused(Few(), alpha=0.001)
    assert note.endswith(
        "set `--calibration.alpha 0.08`, or collect more rows: alpha 0.001 needs 2995 for calibration alone"
    )


def test_rows_that_say_their_split_have_no_other_share():
    data = Few()
    splits = data.load().splits
    few = Examples(splits["calibration"].x[:20], splits["calibration"].labels[:20])
    data._dataset = Dataset({**splits, "calibration": few}, data.classes, data.input)
    note = refused(data)
    assert len([line for line in note.splitlines() if "│" in line]) == 1
    assert "--data.calibration" not in note
    assert note.endswith("needs 59 for calibration alone")


def test_a_promise_that_can_be_kept_is_no_error():
    promise.require(Few(500), 0.05, 0.05)
