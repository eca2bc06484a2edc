from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dubio.models import load
from dubio.training.cli import interruption
from dubio.training.cli.main import main

# Whoever runs these tests in the background may have SIGINT ignored, which processes inherit.
RUN = """
import signal
from dubio.training.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
ROOT = Path(__file__).resolve().parents[3]
CONFIG = str(ROOT / "configs" / "digits_mlp.yaml")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
# Of Lightning, where the signal comes within an epoch: the rest of that epoch's rows are not seen.
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.slow
def test_ctrl_c_in_a_fit_says_how_to_go_on(tmp_path: Path):
    arguments = ["fit", "--config", "digits_mlp", "--runs", str(tmp_path), "--trainer.enable_progress_bar", "false"]
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments, "--trainer.max_epochs", "100000"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.rglob("last.ckpt")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    line = said.strip().splitlines()[-1]
    assert "Traceback" not in said
    start = "dubio-train: interrupted; go on with: dubio-train "
    assert line.startswith(start)
    before = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)
    more = ["--trainer.max_epochs", str(before["epoch"] + 3), "--calibration.num_samples", "4"]
    main([*shlex.split(line.removeprefix(start)), *more])
    after = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)
    assert after["global_step"] > before["global_step"]
    assert load(tmp_path / "digits_mlp" / "model.ckpt").detector is not None


def test_what_to_do_depends_on_what_was_saved(tmp_path: Path):
    assert "start again" in interruption.go_on(tmp_path, trained=False)
    (tmp_path / "config.yaml").touch()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    assert "start again" in interruption.go_on(tmp_path, trained=False)
    assert interruption.go_on(tmp_path, trained=True) == (
        f"interrupted; go on with: dubio-train calibrate --config {tmp_path}/config.yaml "
        f"--ckpt_path {tmp_path}/checkpoints/best.ckpt"
    )


@interruption.in_status()
def _end_as_lightning_does() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


def test_only_ctrl_c_is_taken_for_it():
    assert interruption.is_interrupt(KeyboardInterrupt())
    assert not interruption.is_interrupt(SystemExit(1))
    with pytest.raises(SystemExit) as ended:
        _end_as_lightning_does()
    assert ended.value.code == 130


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_a_fit_that_is_terminated_says_so(tmp_path: Path):
    arguments = ["fit", "--config", CONFIG, "--runs", str(tmp_path), "--trainer.max_epochs", "10000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "dubio.training", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.rglob("last.ckpt")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)["epoch"] >= 0
