"""`dubio-train report`, where something is wrong with what it is given."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dubio.training.cli.main import main


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["report", *arguments])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "none.ckpt: no such file" in _refused(["--ckpt", str(tmp_path / "none.ckpt")], capsys)


def test_a_checkpoint_without_its_configuration_is_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copy(runs / "digits_mlp" / "model.ckpt", tmp_path / "model.ckpt")
    said = _refused(["--ckpt", str(tmp_path / "model.ckpt")], capsys)
    assert f"configuration of the fit beside the checkpoint, at {tmp_path / 'config.yaml'}" in said
    assert "give `--config`" in said


def test_the_configuration_of_another_run_is_refused(
    runs: Path, coin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = str(shutil.copy(runs / "digits_mlp" / "model.ckpt", tmp_path / "model.ckpt"))
    other = (runs / "digits_mlp" / "config.yaml").read_text().replace("dubio.models.MLP", "not.there.Net")
    (tmp_path / "config.yaml").write_text(other)  # what it names is not imported
    said = _refused(["--ckpt", path], capsys)
    assert f"the fit of {path}, whose network is dubio.models.MLP, but {tmp_path}/config.yaml has not.there" in said
    # The same network, and other classes.
    names = (coin / "coin.csv").read_text().replace(",no", ",never").replace(",yes", ",always")
    (coin / "coin.csv").write_text(names)
    assert "always" in _refused(["--ckpt", "runs/coin/model.ckpt", "--data.path", "coin.csv"], capsys)


def test_two_checkpoints_of_a_folder_have_a_report_each(coin: Path):
    folder = coin / "runs" / "coin"
    shutil.copy(folder / "model.ckpt", folder / "other.ckpt")
    main(["report", "--ckpt_path", "runs/coin/other.ckpt"])
    assert (folder / "other_report" / "report.html").is_file()
    assert not (folder / "model_report").exists()


def test_a_setting_that_does_not_exist_is_refused_by_name(runs: Path, capsys: pytest.CaptureFixture[str]):
    path = str(runs / "digits_mlp" / "model.ckpt")
    assert "outpt" in _refused(["--ckpt", path, "--outpt", "here"], capsys)


def test_its_help_teaches(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    said = capsys.readouterr().out
    for word in (
        "calibration error",
        "exact law",
        "what a new version must show",
        "byte for byte",
        "--output FOLDER",
        "config.yaml",
    ):
        assert word in said
