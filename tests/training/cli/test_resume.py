from __future__ import annotations

from pathlib import Path

import pytest

from dubio.training.cli.main import main
from tests import table


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_checkpoint_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str):
    """Lightning would warn and start anew, or test random weights."""
    line = table.refused(capsys, tmp_path, "--ckpt_path", name)
    assert f"`--ckpt_path {name}` to be {tmp_path}/runs/table/checkpoints/{name}.ckpt" in line
    assert not (tmp_path / "runs").exists()
    arguments = ["--config", str(table.write(tmp_path)), "--data.path", str(tmp_path / "table.csv")]
    with pytest.raises(SystemExit):
        main(["test", *arguments, "--runs", str(tmp_path / "runs"), "--ckpt_path", name])
    assert "no such file" in capsys.readouterr().err


def test_a_run_goes_on_from_its_last_and_from_its_best(tmp_path: Path):
    table.fit(tmp_path)
    for epochs, name in ((3, "last"), (4, "best")):
        run = table.fit(tmp_path, "--ckpt_path", name, "--trainer.max_epochs", str(epochs))
        assert table.content(run / "checkpoints" / "last.ckpt")["epoch"] == epochs - 1


def test_a_run_with_nothing_left_to_train_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table.fit(tmp_path)
    for epochs in ("1", "2"):
        line = table.refused(capsys, tmp_path, "--ckpt_path", "last", "--trainer.max_epochs", epochs)
        assert "to be more than the 2 epochs" in line
    steps = ["--trainer.max_epochs", "9", "--trainer.max_steps", str(2 * table.STEPS)]
    assert "to be more than the 12 steps" in table.refused(capsys, tmp_path, "--ckpt_path", "last", *steps)


def test_weights_of_another_network_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table.fit(tmp_path)
    wider = ["--model.network.widths", "[16, 17]", "--trainer.max_epochs", "3"]
    line = table.refused(capsys, tmp_path, "--ckpt_path", "last", *wider)
    assert "the weights do not fit the network MLP" in line
