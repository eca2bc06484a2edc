from __future__ import annotations

from pathlib import Path

import pytest

from tests import table

SHOWN = ["--trainer.enable_progress_bar", "true"]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]


def test_what_is_no_terminal_gets_a_plain_line_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = table.fit(tmp_path, *SHOWN)
    names = ("train_loss", "val_accuracy", "val_loss")
    of = {name: table.metrics(run, name) for name in names}
    for epoch, line in enumerate(lines(capsys)):
        begin, _, shown = line.partition(": ")
        assert begin == f"epoch {epoch + 1} of 2"
        assert {f"{name} {of[name][epoch]:.4f}" for name in names} <= set(shown.split(", "))
    assert epoch == 1


def test_a_line_shows_no_metric_of_another_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    endless = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(3 * table.STEPS)]
    table.fit(tmp_path, *SHOWN, *endless, "--trainer.check_val_every_n_epoch", "2")
    first, second, third = lines(capsys)
    assert first.startswith("epoch 1: train_loss ")
    assert [("val_loss" in line) for line in (first, second, third)] == [False, True, False]


def test_a_terminal_gets_a_bar_and_who_wants_silence_gets_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    table.fit(tmp_path)
    assert lines(capsys) == []
    monkeypatch.setenv("FORCE_COLOR", "1")  # which Rich takes for a terminal
    monkeypatch.setattr("rich._console", None)  # whatever console is made now must not outlive the test
    table.fit(tmp_path, *SHOWN)
    out = capsys.readouterr().out
    assert "Epoch 1/1" in out
    assert "epoch 1" not in out
