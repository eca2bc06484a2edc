from __future__ import annotations

import csv
import pickle
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from dubio.models import NetworkSpec, load
from dubio.models.errors import ModelError
from dubio.training import CalibrationSettings, Digits
from dubio.training.cli.main import main
from dubio.training.dry_run import dry_run
from dubio.training.errors import TrainingError
from dubio.uncertainty.errors import UncertaintyError
from tests import table

QUICK = CalibrationSettings(num_samples=4)
IMAGES = """
name: images
model:
  class_path: dubio.training.Classifier
  init_args:
    network: {class_path: dubio.models.MLP, init_args: {widths: [8], rates: [0.2]}}
data: {class_path: dubio.training.Arrays}
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
calibration: {num_samples: 4}
"""


def images(folder: Path, size: int) -> list[str]:
    """RGB images of noise, and a configuration for them."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (600, 3, size, size), dtype=np.uint8)
    np.savez(folder / "images.npz", x=x, y=np.arange(600) % 2)
    (folder / "images.yaml").write_text(IMAGES)
    more = ["--data.path", str(folder / "images.npz"), "--runs", str(folder / "runs")]
    return ["fit", "--config", str(folder / "images.yaml"), *more]


def divided(folder: Path, train: dict[str, int]) -> list[str]:
    """A table with so many training rows of each class, and enough rows of each in the other splits."""
    table.write(folder)
    generator = np.random.default_rng(0)
    with (folder / "divided.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "label", "split"])
        counts = {"train": train} | {
            split: dict.fromkeys(train, 40) for split in ("validation", "select", "calibration", "test")
        }
        for split, rows in counts.items():
            for index, (label, count) in enumerate(rows.items()):
                for a, b in generator.normal(index, 1, (count, 2)):
                    writer.writerow([f"{a:.4f}", f"{b:.4f}", label, split])
    return ["--data.path", str(folder / "divided.csv"), "--data.split", "split"]


def test_images_wider_than_a_covariance_train_without_the_score_that_needs_it(tmp_path: Path):
    main(images(tmp_path, size=37))
    names = [score.name for score in load(tmp_path / "runs" / "images" / "model.ckpt").detector.scores]
    assert not {"input_mahalanobis", "input_class_mahalanobis"} & set(names)


def test_a_score_that_does_not_suit_the_inputs_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main([*images(tmp_path, size=37), "--calibration.scores", "[input_mahalanobis]"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert "at most 4096 numbers for the score `input_mahalanobis`, but got 4107; leave it out" in line
    assert not (tmp_path / "runs").exists()


def test_fewer_training_rows_than_neighbours_are_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = divided(tmp_path, {"no": 20, "yes": 20})
    asked = ["--calibration.scores", "[mutual_information, neighbours]", "--calibration.k"]
    line = table.refused(capsys, tmp_path, *arguments, *asked, "50")
    assert "Expected `calibration.k` to be at most 40, the number of training rows, but got 50" in line
    assert not (tmp_path / "runs").exists()
    run = table.fit(tmp_path, *arguments, *asked, "40")
    assert neighbour(run) == 40


def neighbour(run: Path) -> int:
    (score,) = (each for each in load(run / "model.ckpt").detector.scores if each.name == "neighbours")
    return score.k


def test_a_default_that_the_training_rows_cannot_carry_is_lowered_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    asked = ("--calibration.scores", "[mutual_information, neighbours]")
    run = table.fit(tmp_path, *divided(tmp_path, {"no": 20, "yes": 20}), *asked)
    told = "dubio-train: note: there are 40 training rows, fewer than 50, so the score `neighbours` takes 10 for "
    assert told in capsys.readouterr().err
    assert neighbour(run) == 10
    with (run / "config.yaml").open() as file:
        assert yaml.safe_load(file)["calibration"]["k"] is None  # more rows will get more
    assert neighbour(table.fit(tmp_path, *divided(tmp_path, {"no": 25, "yes": 25}), *asked)) == 50
    assert "training rows, fewer" not in capsys.readouterr().err


def test_a_class_with_one_training_row_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = divided(tmp_path, {"no": 30, "yes": 30, "rare": 1})
    line = table.refused(capsys, tmp_path, *arguments)
    assert "at least 2 training rows of every class" in line
    assert "class 'rare' has 1" in line
    assert not (tmp_path / "runs").exists()
    run = table.fit(tmp_path, *arguments, "--calibration.scores", "[mutual_information, neighbours]")
    assert load(run / "model.ckpt").classes == ("no", "rare", "yes")


class Forgetful(nn.Module):
    """Builds other weights than it was given for, as a network does that reads a file of settings."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, self.width), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(self.width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def test_a_network_that_cannot_be_built_again_is_refused(digits: Digits, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "forgetful", type("Module", (), {"Forgetful": Forgetful}))
    monkeypatch.setattr(Forgetful, "__module__", "forgetful")
    network, spec = Forgetful(), NetworkSpec(class_path="forgetful.Forgetful", init_args={})
    dry_run(network, spec, digits, QUICK)
    monkeypatch.setattr(Forgetful, "width", 9)
    with pytest.raises(ModelError):
        dry_run(network, spec, digits, QUICK)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (replace(QUICK, mc_sites=("nowhere",)), UncertaintyError),
        (replace(QUICK, mc_rates={"nowhere": 0.5}), UncertaintyError),
        (replace(QUICK, k=2000, scores=("neighbours",)), TrainingError),
        (replace(QUICK, k=2000, scores=("nnguide",)), TrainingError),
        (replace(QUICK, k=0, scores=("neighbours",)), UncertaintyError),
    ],
)
def test_settings_that_the_calibration_refuses_are_refused(
    digits: Digits, network: nn.Module, network_spec: NetworkSpec, settings: CalibrationSettings, error: type[Exception]
):
    with pytest.raises(error):
        dry_run(network, network_spec, digits, settings)


@pytest.mark.parametrize(
    "random_state",
    [
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda: pickle.dumps(np.random.get_state()),  # noqa: NPY002
        random.getstate,
    ],
)
def test_it_leaves_no_trace(
    digits: Digits, network: nn.Module, network_spec: NetworkSpec, random_state: Callable[[], object]
):
    before, network_before = random_state(), pickle.dumps(network)  # weights, modes and hooks
    dry_run(network, network_spec, digits, replace(QUICK, tune_rates=(0.5, 1.0)))
    assert random_state() == before
    assert pickle.dumps(network) == network_before


def test_a_promise_that_needs_more_rows_than_are_looked_at_is_run_dry(
    digits: Digits, network: nn.Module, network_spec: NetworkSpec
):
    dry_run(network, network_spec, digits, replace(QUICK, alpha=0.01, k=1000, scores=("neighbours", "energy")))
