"""Progress: a few lines where no bar can be drawn."""

from __future__ import annotations

import torch

from dubio.training.progress import BATCH, progress


def _shown(seconds: float, batches: int, capsys) -> list[str]:
    """What is printed for two splits of so many batches together, each of which takes so long."""
    now = 0.0
    x = torch.arange(batches * BATCH)
    seen = []
    with progress("Calibrating", len(x), lambda: now) as split:
        for part in (x[: BATCH * (batches // 3)], x[BATCH * (batches // 3) :]):
            for batch in split(part):
                now += seconds
                seen.append(batch)
    assert torch.equal(torch.cat(seen), x)
    return capsys.readouterr().out.splitlines()


def _line(done: int, batches: int) -> str:
    return f"Calibrating: {done * BATCH} of {batches * BATCH} rows"


def test_a_log_gets_a_line_after_ten_seconds_and_then_fewer(capsys):
    assert _shown(1, 80, capsys) == [_line(10, 80), _line(30, 80), _line(70, 80)]


def test_what_takes_moments_prints_nothing(capsys):
    assert _shown(0.1, 90, capsys) == []


def test_slow_batches_get_one_line_each_at_most(capsys):
    assert _shown(25, 3, capsys) == [_line(1, 3), _line(2, 3)]


def test_a_terminal_gets_a_bar_and_no_lines(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    shown = "\n".join(_shown(30, 6, capsys))
    assert "Calibrating" in shown
    assert "rows" not in shown
