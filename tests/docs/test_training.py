"""The example of a network that was trained elsewhere runs as it is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from dubio.models import load
from dubio.training.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
NAMED_BLOCK = re.compile(r"^`([\w.]+)`[^\n]*\n\n```\w+\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


LOGS = PAGE.split("## Logs")[1]


@pytest.mark.parametrize("logger", re.findall(r"--trainer\.logger \w+(?: --[\w.]+ \w+)*", LOGS))
def test_a_logger_is_named_as_the_parser_names_it(logger: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "digits_mlp", *logger.split(), "--print_config"])
    assert ended.value.code == 0
    chosen = yaml.safe_load(capsys.readouterr().out)["trainer"]["logger"]
    name = logger.split()[1]
    assert chosen is False if name == "false" else chosen["class_path"] == f"pytorch_lightning.loggers.{name}"


def test_several_loggers_are_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "loggers.yaml").write_text(LOGS.split("```yaml\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    quick = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--calibration.num_samples", "4"]
    main(["fit", "--config", "digits_mlp", "--config", "loggers.yaml", *quick])
    logs = tmp_path / "runs" / "digits_mlp" / "logs"
    assert {path.name.split(".")[0] for path in logs.rglob("*") if path.is_file()} >= {"metrics", "events"}


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in NAMED_BLOCK.findall(PAGE):
        (tmp_path / name).write_text(text)
    assert {path.name for path in tmp_path.iterdir()} == {"net.py", "loop.py", "mine.yaml"}
    commands = re.findall(r"^((?:python|dubio-train) .+)$", PAGE.split("```bash")[1].split("```")[0], re.MULTILINE)
    assert len(commands) == 2
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    for command in commands:
        program, *arguments = command.split()
        ran = subprocess.run(
            [str(Path(sys.executable).parent / program), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
    # What it says comes next is what the page says.
    assert ran.stdout.splitlines()[-1] == "next: dubio-serve --trusted net runs/mine/model.ckpt"
    assert "\ndubio-serve --trusted net runs/mine/model.ckpt\n" in PAGE
    monkeypatch.syspath_prepend(tmp_path)
    predictor = load(tmp_path / "runs" / "mine" / "model.ckpt", trusted=["net"])
    with np.load(tmp_path / "digits.npz") as digits:
        test = digits["split"] == "test"
        answer = predictor.predict(digits["x"][test][:, None])
        assert (answer.label == digits["y"][test]).mean() > 0.9
    del sys.modules["net"]
