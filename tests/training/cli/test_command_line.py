from __future__ import annotations

from pathlib import Path

import pytest

from dubio.training.cli.command_line import run
from dubio.training.cli.lightning_cli import CLI
from dubio.training.errors import TrainingError

FIT = ["fit", "--config", "digits_mlp", "--trainer.enable_progress_bar", "false"]


def test_half_a_name_is_a_mistake(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"trainer\.max_ep"):
        run(CLI, [*FIT, "--runs", str(tmp_path), "--trainer.max_ep", "1"])
    assert not list(tmp_path.iterdir())


def test_what_lightning_calls_wrong_is_a_mistake_of_the_command_line(tmp_path: Path):
    with pytest.raises(TrainingError, match="fast_dev_run"):
        run(CLI, [*FIT, "--runs", str(tmp_path), "--trainer.fast_dev_run", "-1"])


def test_it_gives_what_it_ran(tmp_path: Path):
    command = run(CLI, [*FIT, "--runs", str(tmp_path), "--trainer.fast_dev_run", "true"])
    assert command.run_folder == tmp_path / "digits_mlp"
    assert command.trainer.state.finished
    assert not command.servable.exists()
