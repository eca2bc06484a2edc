"""A table of 600 rows and two classes that overlap, and a network that is fitted to it in half a second."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dubio.training.cli.main import main

CONFIG: dict[str, Any] = {
    "name": "table",
    "threads": 1,
    "model": {
        "class_path": "dubio.training.Classifier",
        "init_args": {
            "network": {"class_path": "dubio.models.MLP", "init_args": {"widths": [16, 16], "rates": [0.2, 0.2]}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
        },
    },
    "data": {"class_path": "dubio.training.Table", "init_args": {"target": "label"}},
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
    "calibration": {"num_samples": 4},
}
STEPS = 6  # of an epoch: 360 rows in batches of 64


def write(folder: Path) -> Path:
    """Writes table and configuration; returns the latter's path."""
    if not (folder / "table.yaml").exists():
        generator = np.random.default_rng(0)
        with (folder / "table.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["a", "b", "c", "label"])
            for row in range(600):
                values = generator.normal(size=3) + 1.5 * (row % 2)
                writer.writerow([*(f"{value:.4f}" for value in values), ["no", "yes"][row % 2]])
        (folder / "table.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder / "table.yaml"


def fit(folder: Path, *more: str) -> Path:
    """The folder of a finished run."""
    files = ["--config", str(write(folder)), "--data.path", str(folder / "table.csv"), "--runs", str(folder / "runs")]
    main(["fit", *files, *more])
    return folder / "runs" / "table"


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *more: str) -> str:
    """The one line with which a fit is refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        fit(folder, *more)
    assert caught.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("dubio-train: error: ")
    return line


def content(path: Path) -> dict[str, Any]:
    """What a checkpoint holds."""
    return dict(torch.load(path, weights_only=True))


def metrics(run: Path, name: str) -> list[float]:
    """The values of a metric in the last log of a run, epoch by epoch."""
    path = max((run / "logs").glob("*/metrics.csv"), key=lambda each: int(each.parent.name.removeprefix("version_")))
    with path.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]
