"""A shadow that runs: what it compares, what it skips, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from dubio import models
from dubio.models import Predictor
from dubio.serving.shadow.comparison import Comparison
from dubio.serving.shadow.shadow import Shadow, Standing


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def known(shadow: Shadow) -> Comparison:
    comparison = shadow.compare()
    assert comparison is not None
    return comparison


def counted(shadow: Shadow, name: str) -> float | None:
    return shadow._metrics.registry.get_sample_value(f"dubio_shadow_{name}_total", {"model": "bars", "version": "2"})


def test_a_shadow_compares_skips_keeps_its_share_and_ends_alone(
    start_shadow: Callable, second_checkpoint: Path, predictor: Predictor, bars: np.ndarray
) -> None:
    rate = 0.2
    shadow = start_shadow(second_checkpoint, rate=rate)
    assert (shadow.standing, shadow.reason) == (Standing.RUNNING, "")
    assert known(shadow).rows == 0
    prediction = predictor.predict(bars)
    shadow.offer(bars, prediction, 0.25)
    wait_for(lambda: known(shadow).rows)
    other = models.load(second_checkpoint).predict(bars)
    comparison = known(shadow)
    assert (comparison.rows, comparison.judged, comparison.live_flagged) == (60, 60, prediction.flagged.sum())
    assert comparison.disagreements == (prediction.label != other.label).sum() == counted(shadow, "disagreements")
    assert abs(comparison.shadow_flagged - other.flagged.sum()) <= 2  # rounding may move a p-value at the level
    assert comparison.live_seconds.total == 0.25

    # More than it may take: what does not wait is skipped, and all is either answered or skipped.
    process = psutil.Process(shadow._process.process.pid)
    spent, began = process.cpu_times(), time.monotonic()
    for _ in range(500):
        shadow.offer(bars, prediction, 0.01)
        time.sleep(0.004)
    wait_for(lambda: not shadow._jobs)
    wait_for(lambda: known(shadow).rows - 60 + counted(shadow, "skipped_rows") >= 500 * 60)  # none is under way
    now, seconds = process.cpu_times(), time.monotonic() - began
    answered, skipped = known(shadow).rows - 60, counted(shadow, "skipped_rows")
    assert skipped > 0
    assert answered + skipped == 500 * 60
    taken = now.user + now.system - spent.user - spent.system
    assert taken <= rate * (seconds + 1) + 0.3  # but for a second's saving, and the last request

    process.suspend()
    shadow.offer(bars, prediction, 0.01)
    wait_for(lambda: not shadow._jobs)  # this one is under way, and the next waits
    shadow.offer(bars[:7], predictor.predict(bars[:7]), 0.01)
    skipped = counted(shadow, "skipped_rows")
    process.kill()
    wait_for(lambda: shadow.standing is Standing.ENDED)
    wait_for(lambda: counted(shadow, "skipped_rows") == skipped + 7)
    assert "SIGKILL" in shadow.reason
    rows = known(shadow).rows
    shadow.offer(bars, prediction, 0.01)  # nobody takes it
    assert known(shadow).rows == rows
    assert not shadow._jobs


@pytest.mark.slow
def test_what_waits_is_asked_together_and_what_is_refused_spoils_no_other(
    start_shadow: Callable, second_checkpoint: Path, predictor: Predictor, bars: np.ndarray
) -> None:
    shadow = start_shadow(second_checkpoint)
    other = models.load(second_checkpoint).predict(bars[:12])
    process = psutil.Process(shadow._process.process.pid)
    process.suspend()
    for number in range(12):
        shadow.offer(bars[number : number + 1], predictor.predict(bars[number : number + 1]), 0.1)
    process.resume()
    wait_for(lambda: known(shadow).rows == 12)
    comparison = known(shadow)
    assert comparison.disagreements == (predictor.predict(bars[:12]).label != other.label).sum()
    assert (comparison.live_seconds.count, comparison.shadow_seconds.count) == (12, 12)

    process.suspend()
    for row in (bars[:1], np.full_like(bars[:1], np.nan), bars[1:2]):
        shadow.offer(row, predictor.predict(bars[:1]), 0.1)
    process.resume()
    wait_for(lambda: known(shadow).rows == 15)
    expected = [predictor.predict(bars[:1]).label[0] != label for label in other.label[:2]]
    assert known(shadow).disagreements - comparison.disagreements == sum(expected) + 1
    assert shadow.standing is Standing.RUNNING


@pytest.mark.slow
def test_one_that_takes_another_input_ends(start_shadow: Callable, numbers_checkpoint: Path) -> None:
    shadow = start_shadow(numbers_checkpoint)
    assert shadow.standing is Standing.ENDED
    assert "input." in shadow.reason
    assert shadow.compare() is None


@pytest.mark.slow
def test_one_that_is_put_away_while_it_loads_is_gone(start_shadow: Callable, checkpoint: Path) -> None:
    shadow = start_shadow(checkpoint, wait=False)
    shadow.offer(np.zeros((1, 1, 8, 8), np.float32), None, 0.1)  # it takes nothing yet
    shadow.close()
    assert shadow.standing is Standing.ENDED
    assert shadow._process is None or shadow._process.process.poll() is not None


@pytest.mark.slow
def test_a_late_answer_ends_it(
    start_shadow: Callable, checkpoint: Path, predictor: Predictor, bars: np.ndarray
) -> None:
    shadow = start_shadow(checkpoint, seconds=0.2)
    psutil.Process(shadow._process.process.pid).suspend()
    shadow.offer(bars, predictor.predict(bars), 0.1)
    wait_for(lambda: shadow.standing is Standing.ENDED)
    assert "not ready within 1 s" in shadow.reason


@pytest.mark.slow
def test_its_end_before_anything_was_compared_is_told(start_shadow: Callable, tmp_path: Path) -> None:
    (tmp_path / "half.ckpt").write_bytes(b"half a fi")
    shadow = start_shadow(tmp_path / "half.ckpt")
    assert (shadow.standing, shadow.compare()) == (Standing.ENDED, None)
    assert shadow.reason
