from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dubio.models import Predictor, load
from dubio.training import Arrays, CalibrationSettings, Digits, evaluation
from dubio.training.cli import summary
from dubio.training.data.module import TensorDataModule


@pytest.fixture(scope="module")
def predictor(runs: Path) -> Predictor:
    return load(runs / "digits_mlp" / "model.ckpt")


def commands(
    capsys: pytest.CaptureFixture[str], predictor: Predictor, data: TensorDataModule, path: Path, folder: Path
) -> list[list[str]]:
    summary.say_next(predictor, data, path, folder)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("next: ") for line in lines)
    return [shlex.split(line.removeprefix("next: ")) for line in lines]


def test_what_comes_next_can_be_copied_whatever_the_names(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / ("a run [bold] " + "of a long name " * 8)
    folder.mkdir()
    data = Arrays(str(tmp_path / "my data.npz"))
    path = folder / "model.ckpt"
    assert commands(capsys, predictor, data, path, folder) == [["dubio-serve", str(path)]]
    (folder / "config.yaml").touch()
    config = ["--config", str(folder / "config.yaml")]
    predict = ["dubio-train", "predict", *config, "--data.path", str(tmp_path / "my data.npz")]
    assert commands(capsys, predictor, data, path, folder) == [["dubio-serve", str(path)], predict]
    other = commands(capsys, predictor, data, tmp_path / "other.ckpt", folder)[1]
    assert other == [*predict[:4], "--ckpt_path", str(tmp_path / "other.ckpt"), *predict[4:]]
    # What has no file of its own is not asked for another.
    assert len(commands(capsys, predictor, Digits(), path, folder)) == 1
    foreign = replace(predictor, network_spec=predictor.network_spec.model_copy(update={"class_path": "my.nets.Net"}))
    served = commands(capsys, foreign, data, path, folder)[0]
    assert served == ["dubio-serve", "--trusted", "my.nets", str(path)]


def test_the_figures_are_told_together_and_by_class(
    predictor: Predictor, digits: Digits, capsys: pytest.CaptureFixture[str]
):
    summary.show(evaluation.evaluate(predictor, digits), digits, Path("model.ckpt"), predictor)
    said = capsys.readouterr()
    assert "│ baseline " in said.out
    assert "test rows by class" in said.out
    # Digits are few: what they do not carry is told, on one line.
    refused = [each.risk for each in predictor.promises.acceptances if each.refusal]
    assert [line.split(": the")[0] for line in said.err.splitlines()] == [
        f"dubio-train: note: no answer is accepted at a risk of {risk:g}" for risk in refused
    ]


def test_what_weakens_the_promise_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[40:] = x[:20]
    np.savez(tmp_path / "few.npz", x=x, y=np.arange(60) % 2)
    few = Arrays(str(tmp_path / "few.npz"), train=0.5, validation=0.1, select=0.1, calibration=0.2, test=0.1)
    summary.say_caveats(few, CalibrationSettings(scores=("neighbours",)))
    note, warning = capsys.readouterr().err.splitlines()
    assert note == (
        "dubio-train: note: there are 30 training rows, fewer than 50, so the score `neighbours` takes 7 for "
        "`calibration.k`, and not 50."
    )
    assert "held-out rows are exact duplicates" in warning
    for settings in (CalibrationSettings(k=3, scores=("neighbours",)), CalibrationSettings(scores=("energy",))):
        summary.say_caveats(few, settings)
        assert len(capsys.readouterr().err.splitlines()) == 1
