from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch

from models import MLP
from training import Digits
from training.callbacks.learning_curves import Quality, logits
from training.cli.main import main

ROOT = Path(__file__).resolve().parents[3]
CONFIG = str(ROOT / "configs" / "digits_mlp.yaml")
QUICK = ["--config", CONFIG, "--trainer.enable_progress_bar", "false", "--calibration.num_samples", "8"]


def _weights(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name.removeprefix("network."): tensor for name, tensor in state.items()}


def test_both_are_trained_for_as_long_and_what_is_told_is_what_they_achieve(
    tmp_path: Path, digits: Digits, capsys: pytest.CaptureFixture[str]
):
    figure = tmp_path / "drawn" / "curves.svg"
    more = ["--runs", str(tmp_path), "--trainer.max_epochs", "3", "--figure", str(figure)]
    main(["compare", *QUICK, *more])
    said = capsys.readouterr().out
    folder = tmp_path / "digits_mlp" / "compare"
    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["trained"], int(row["epoch"])) for row in rows] == [
        (trained, epoch) for trained in ("with dropout", "without dropout") for epoch in (1, 2, 3)
    ]
    assert re.search(r"mean of 8 members", said)
    for name, trained in (("with_dropout", "with dropout"), ("without_dropout", "without dropout")):
        network = MLP(in_features=64)
        network.load_state_dict(_weights(folder / name / "checkpoints" / "best.ckpt"))
        answers, labels = logits(network, digits, "test")
        quality = Quality.of(answers.softmax(-1), labels)
        line = next(line for line in said.splitlines() if f"│ {trained} " in line and "deterministic" in line)
        assert f"{quality.accuracy:.2%}" in line
        assert f"{quality.nll:.4f}" in line
        assert f"{quality.ece:.4f}" in line
        network.load_state_dict(_weights(folder / name / "checkpoints" / "last.ckpt"))
        answers, labels = logits(network, digits, "train")
        loss = float(torch.nn.functional.cross_entropy(answers, labels))
        last = [row for row in rows if row["trained"] == trained][-1]
        assert float(last["train_loss"]) == pytest.approx(loss, rel=1e-4)
    # Without dropout the same rows are learned faster.
    ends = {row["trained"]: float(row["train_loss"]) for row in rows}
    assert ends["without dropout"] < ends["with dropout"]
    assert figure.read_text().startswith("<?xml")
    assert not (tmp_path / "digits_mlp" / "model.ckpt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.fast_dev_run", "true"], "one process and whole epochs to compare"),
        (["--model.network.rates", "[0, 0, 0]"], "no dropout site"),
        (["--nonsense", "1"], "there is no setting `nonsense`"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys, arguments: list[str], message: str):
    with pytest.raises(SystemExit) as caught:
        main(["compare", *QUICK, "--runs", str(tmp_path), *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


def test_help_says_what_it_takes(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    assert "every argument that" in capsys.readouterr().out
