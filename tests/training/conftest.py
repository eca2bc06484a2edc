"""Fixtures: the digits, a small network, and one run of the command line that several tests look at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from dubio.models import MLP, NetworkSpec
from dubio.training import Digits
from dubio.training.cli.main import main
from tests.training import coins

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "configs" / "digits_mlp.yaml")
QUICK = ["--trainer.max_epochs", "6", "--trainer.enable_progress_bar", "false"]
ARGUMENTS = {"in_features": 64, "widths": [64, 32], "num_classes": 10, "rates": [0.3, 0.3]}


@pytest.fixture(scope="session")
def digits() -> Digits:
    data = Digits()
    data.setup()
    return data


@pytest.fixture
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP(**ARGUMENTS)


@pytest.fixture
def network_spec() -> NetworkSpec:
    return NetworkSpec(class_path="dubio.models.MLP", init_args=ARGUMENTS)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished `dubio-train fit` of the digits; a test must not write into it."""
    folder = tmp_path_factory.mktemp("runs")
    main(["fit", "--config", CONFIG, "--runs", str(folder), *QUICK])
    return folder


@pytest.fixture(scope="session")
def coin_fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit that learned its training rows by heart; a test must not write into it."""
    folder = tmp_path_factory.mktemp("coin")
    network = {"class_path": "dubio.models.MLP", "init_args": {"widths": [128], "rates": [0.1]}}
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.02}}
    content = {
        "name": "coin",
        "runs": str(folder / "runs"),
        "model": {
            "class_path": "dubio.training.Classifier",
            "init_args": {"network": network, "optimizer": optimizer},
        },
        "data": {
            "class_path": "dubio.training.Table",
            "init_args": {
                "path": coins.save(folder / "coin.csv", coins.rows(coins.ROWS, 0)),
                "target": "label",
                "ignore": ["id"],
            },
        },
        "trainer": {"accelerator": "cpu", "max_epochs": 120, "enable_progress_bar": False, "logger": False},
        "checkpoint": {"monitor": "train_loss"},
        "calibration": {"num_samples": 4, "alpha": 0.1},
    }
    (folder / "coin.yaml").write_text(yaml.safe_dump(content))
    main(["fit", "--config", str(folder / "coin.yaml")])
    return folder


@pytest.fixture
def coin(coin_fit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, to work in."""
    shutil.copytree(coin_fit, tmp_path / "coin")
    monkeypatch.chdir(tmp_path / "coin")
    content = yaml.safe_load(Path("coin.yaml").read_text())
    content["runs"], content["data"]["init_args"]["path"] = "runs", "coin.csv"
    Path("coin.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "coin"
