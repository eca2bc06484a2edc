"""A folder of one's own: its names hide nothing of Dubio's, and its classes are found without PYTHONPATH."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import httpx
import pytest

from dubio.training import Digits
from tests.packaging.conftest import call, serving

pytestmark = pytest.mark.slow

NETWORK = """
import wave  # the standard library's
from torch import nn

class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.body(x))
"""
CONFIG = """
name: own
threads: 1
model: {class_path: dubio.training.Classifier, init_args: {network: {class_path: models.net.Net}}}
data: {class_path: dubio.training.Digits}
trainer: {max_epochs: 2, accelerator: cpu, enable_progress_bar: false}
calibration: {num_samples: 4}
"""
# Names of Dubio's own folders, of libraries, and of a module that nobody has imported before the network's module does.
TRAPS = (
    "serving.py",
    "training/__init__.py",
    "uncertainty.py",
    "configs/__init__.py",
    "numpy.py",
    "torch/__init__.py",
    "wave.py",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in TRAPS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('the wrong module: ' + __file__)\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    (tmp_path / "models" / "net.py").write_text(NETWORK)
    (tmp_path / "own.yaml").write_text(CONFIG)
    return tmp_path


def script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def test_a_network_of_ones_own_is_trained_calibrated_and_served(folder: Path):
    def train(*arguments: str) -> str:
        ran = call(script("dubio-train"), *arguments, cwd=folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    train("fit", "--config", "own.yaml")
    train("predict", "--config", "own.yaml")
    train("calibrate", "--config", "own.yaml", "--calibration.alpha", "0.1")
    audit = train("audit", "--ckpt", "runs/own/model.ckpt", "--trusted", "models")
    # The rate of the training comes second: the calibration may have lowered the members'.
    assert re.search(r"^body\.3 +dropout +0\.\d+ +0\.3 ", audit, re.MULTILINE), audit

    refused = call(script("dubio-serve"), "runs/own/model.ckpt", "--port", "0", cwd=folder)
    assert refused.returncode == 2
    assert "'models.net.Net', which is neither in the registry" in refused.stderr

    data = Digits()
    images, numbers = data.raw("test")[0], data.load().rows["test"][:20]
    with serving(
        script("dubio-serve"), "runs/own/model.ckpt", "--trusted", "models", "--port", "0", "--workers", "2", cwd=folder
    ) as url:
        answer = httpx.post(f"{url}/v1/predict", json={"instances": images[:20].tolist()}, timeout=60).json()
        promise = httpx.get(f"{url}/v1/models/own").json()["calibration"]
    with (folder / "runs" / "own" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    asked = [rows[number] for number in numbers]
    assert {row["split"] for row in asked} == {"test"}
    labels = [row["deterministic.label"] for row in asked]
    assert [str(each["deterministic"]["label"]) for each in answer["predictions"]] == labels
    assert promise["alpha"] == 0.1
