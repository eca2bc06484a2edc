"""Fixtures: the digits, a small network, and one run of the command line that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dubio.models import MLP, NetworkSpec
from dubio.training import Digits
from dubio.training.cli.main import main

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
