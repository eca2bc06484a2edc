"""The page on networks of other libraries runs as it is printed."""

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
PAGE = (ROOT / "docs" / "foreign.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = PAGE.split("```bash\n")[1].split("```")[0].splitlines()


def run(folder: Path, program: str, *arguments: str) -> str:
    ran = subprocess.run(
        [program, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@pytest.mark.slow
def test_the_example_of_transformers_runs(tmp_path: Path):
    (tmp_path / "bert.py").write_text(PROGRAMS[0])
    python, calibrate, serve = (command.split() for command in COMMANDS)
    run(tmp_path, sys.executable, *python[1:])
    said = run(tmp_path, str(Path(sys.executable).parent / calibrate[0]), *calibrate[1:])
    assert said.splitlines()[-2 if "predict" in said.splitlines()[-1] else -1] == f"next: {' '.join(serve)}"
    predictor = load(tmp_path / serve[-1])
    with np.load(tmp_path / "tokens.npz") as arrays:
        test = arrays["split"] == "test"
        answer = predictor.predict(arrays["x"][test])
        assert (answer.label == arrays["y"][test]).mean() > 0.9
    assert float(answer.mc_std.max()) > 0
    assert {site.kind for site in predictor.committee.sites} == {"dropout", "attention"}


def test_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    exec(compile(PROGRAMS[1], "docs/foreign.md", "exec"), {})
    assert capsys.readouterr().out == "(2, 3) (2, 3) None ['not_calibrated', 'not_calibrated']\n"
