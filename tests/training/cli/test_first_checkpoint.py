"""The checkpoint that a command begins with: spelled in either way, and told at once where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dubio.models.errors import UnreadableCheckpoint
from dubio.training.cli import first_checkpoint
from dubio.training.errors import TrainingError
from tests.training.cli.test_quick import HEAVY

COMMANDS = [
    ["audit", "--ckpt", "none.ckpt"],
    ["report", "--ckpt_path", "none.ckpt"],
    ["test", "--config", "digits_mlp", "--ckpt", "none.ckpt"],
    ["predict", "--config", "digits_mlp", "--ckpt_path=none.ckpt"],
    ["calibrate", "--config", "digits_mlp", "--ckpt=none.ckpt"],
    ["validate", "--config", "digits_mlp", "--ckpt", "best"],
    ["fit", "--config", "digits_mlp", "--ckpt_path", "none.ckpt"],
]
CALL = f"""
import sys
from dubio.training.cli.main import main
for arguments in {[*COMMANDS, ["test", "--config", "digits_mlp"], ["audit", "--ckpt", "junk.ckpt"]]!r}:
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 2
    assert not {HEAVY!r} & set(sys.modules), arguments
"""


def test_no_command_loads_a_heavy_library_to_miss_a_file(tmp_path: Path):
    (tmp_path / "junk.ckpt").write_bytes(b"PK\x03\x04" + b"junk" * 99)
    outcome = subprocess.run([sys.executable, "-c", CALL], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    *named, own, junk = outcome.stderr.splitlines()
    for arguments, line in zip(COMMANDS, named, strict=True):
        missing = "runs/digits_mlp/checkpoints/best.ckpt" if arguments[0] == "validate" else "none.ckpt"
        assert line == f"dubio-train: error: {missing}: no such file; train one with `dubio-train fit`."
    assert "a trained model at runs/digits_mlp/model.ckpt, but there is none; run `dubio-train fit`" in own
    assert "junk.ckpt: is not a checkpoint that torch.save wrote, or it is damaged" in junk


@pytest.mark.parametrize("command", ["test", "audit", "report"])
def test_both_spellings_are_one(command: str):
    for given in (["--ckpt", "a.ckpt"], ["--ckpt=a.ckpt"], ["--ckpt_path", "a.ckpt"], ["--ckpt_path=a.ckpt"]):
        assert first_checkpoint.find(first_checkpoint.spelled([command, *given])[1:]) == Path("a.ckpt")
    assert first_checkpoint.spelled(["--ckptx", "--ckpt.y", "ckpt"]) == ["--ckptx", "--ckpt.y", "ckpt"]


def test_what_is_looked_for_later_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = ["--config", "digits_mlp"]
    for command, arguments in [
        ("fit", config),
        ("fit", [*config, "--ckpt_path", "last"]),
        ("fit", [*config, "--ckpt_path", "hpc"]),
        ("fit", [*config, "--ckpt_path", "s3://bucket/a.ckpt"]),
        ("test", [*config, "--print_config"]),
        ("test", [*config, "--data.help", "Digits"]),
        ("configs", []),
    ]:
        first_checkpoint.check(command, arguments)
    with pytest.raises(TrainingError, match="but there is none"):
        first_checkpoint.check("test", config)
    Path("runs/digits_mlp").mkdir(parents=True)
    Path("runs/digits_mlp/model.ckpt").mkdir()
    with pytest.raises(TrainingError):
        first_checkpoint.check("test", config)
    torch.save({"state_dict": {}}, "weights.pt")
    first_checkpoint.check("calibrate", [*config, "--ckpt_path", "weights.pt"])
    Path("weights.pt").write_bytes(Path("weights.pt").read_bytes()[:-5])
    with pytest.raises(UnreadableCheckpoint, match="does not end as an archive does"):
        first_checkpoint.check("calibrate", [*config, "--ckpt_path", "weights.pt"])
