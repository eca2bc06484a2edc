from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from dubio.models import MLP, ConvNet, DropConnectMLP, RecurrentNet, ResNet, TransformerNet
from dubio.training import Digits
from dubio.training.callbacks.learning_curves import logits
from dubio.training.cli.compare import switch_off
from dubio.training.cli.main import main
from dubio.training.quality import Quality

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


class Stock(nn.Module):
    """Torch's recurrent layer, whose dropout is no module."""

    def __init__(self, p: float):
        super().__init__()
        self.layers = nn.LSTM(8, 6, num_layers=2, dropout=p, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x.flatten(1, 2))[0][:, -1])


CASES = [
    (lambda p: MLP(in_features=64, widths=[9], rates=[p])),
    (lambda p: ConvNet(image_size=8, widths=[4], rates=[p], dense=8, dense_rate=p)),
    (lambda p: ResNet(widths=[4, 6], blocks=1, rate=p, head_rate=p)),
    (lambda p: DropConnectMLP(in_features=64, widths=[9], rates=[p])),
    (lambda p: RecurrentNet(8, 6, input_rate=p, recurrent_rate=p, output_rate=p)),
    (lambda p: TransformerNet(8, 8, width=8, layers=2, heads=2, rate=p, head_rate=p)),
    Stock,
]


@pytest.mark.parametrize("build", CASES, ids=lambda build: type(build(0.5)).__name__)
def test_logits_and_gradients_in_training_are_those_of_rates_of_zero(build) -> None:
    torch.manual_seed(0)
    network, due = build(0.5).train(), build(0.0).train()
    due.load_state_dict(network.state_dict())
    x = torch.randn(4, 1, 8, 8)
    dropped = network(x)
    switch_off(network)
    whole = network(x)
    assert not torch.allclose(dropped, whole)
    torch.testing.assert_close(whole, due(x), rtol=1e-4, atol=1e-5)
    network.zero_grad()
    whole.square().sum().backward()
    due(x).square().sum().backward()
    for (name, mine), theirs in zip(network.named_parameters(), due.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_a_pass_that_fails_leaves_others_dropout_on() -> None:
    network = MLP(in_features=4, widths=[3], rates=[0.5]).train()
    switch_off(network)
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 5))
    torch.manual_seed(0)
    assert (nn.Dropout(0.5)(torch.ones(100)) == 0).any()
