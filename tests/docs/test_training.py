"""The example of a network that was trained elsewhere runs as it is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dubio.models import load

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
NAMED_BLOCK = re.compile(r"^`([\w.]+)`[^\n]*\n\n```\w+\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in NAMED_BLOCK.findall(PAGE):
        (tmp_path / name).write_text(text)
    assert {path.name for path in tmp_path.iterdir()} == {"net.py", "loop.py", "mine.yaml"}
    commands = re.findall(
        r"^(?:python|dubio-train) (.+)$", PAGE.split("```bash")[1].split("```")[0], flags=re.MULTILINE
    )
    assert len(commands) == 2
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for command in commands:
        module = ["-m", "dubio.training"] if command.startswith("calibrate") else []
        ran = subprocess.run(
            [sys.executable, *module, *command.split()],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
    monkeypatch.syspath_prepend(tmp_path)
    predictor = load(tmp_path / "runs" / "mine" / "model.ckpt", trusted=["net"])
    with np.load(tmp_path / "digits.npz") as digits:
        test = digits["split"] == "test"
        answer = predictor.predict(digits["x"][test][:, None])
        assert (answer.label == digits["y"][test]).mean() > 0.9
    del sys.modules["net"]
