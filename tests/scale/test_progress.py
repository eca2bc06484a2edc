from __future__ import annotations

import pytest

from dubio.scale.progress import progress, tell_time


def test_a_log_has_few_lines_with_rate_and_time_left(capsys: pytest.CaptureFixture[str]):
    now = 0.0
    with progress(10_000, done=1000, clock=lambda: now) as advance:
        for _ in range(75):
            now += 1
            advance(100)
    assert capsys.readouterr().err.splitlines() == [
        "dubio-score: 2000 of 10000 rows, 100 rows/s, 1:20 left",
        "dubio-score: 4000 of 10000 rows, 100 rows/s, 1:00 left",
        "dubio-score: 8000 of 10000 rows, 100 rows/s, 0:20 left",
    ]


@pytest.mark.parametrize(("seconds", "told"), [(0, "0:00"), (61.4, "1:01"), (3599.6, "1:00:00"), (36_000, "10:00:00")])
def test_times_are_told_as_clocks_do(seconds: float, told: str):
    assert tell_time(seconds) == told
