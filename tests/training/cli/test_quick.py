from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dubio.training.cli import quick
from dubio.training.cli.command_line import run
from dubio.training.cli.lightning_cli import CLI
from dubio.training.cli.settings import VERBS
from dubio.training.errors import TrainingError

HEAVY = {"torch", "pytorch_lightning", "lightning_fabric", "torchmetrics", "sklearn", "polars", "scipy", "matplotlib"}

CALL = f"""
import sys
from dubio.training.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("loaded:", *sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""

SLIPS = [
    ["--config", "digits_mlp", "--trainer.max_epohcs", "3"],
    ["--config", "digits_mlp", "--trainer.max_epohcs=3"],
    ["--config", "digits_mlp", "--calibration.alhpa", "0.1"],
    ["--config", "digits_mlp", "--modle.x", "3"],
    ["--config", "digits_mlp", "--nonsense", "3"],
    ["--config", "digits_mlp", "--data.trian", "0.5"],
    ["--config", "digits_mlp", "--model.network.widht", "3"],
    ["--config", "digits_mlp", "--model.optimizer.lrr", "1"],
    ["--config", "digits_mlp", "--checkpoint.save_topk", "1"],
    ["--config", "digits_mlp", "--data.sampilng", "balanced"],
    ["--config", "digits_mlp", "--model.class_weight", "balanced"],
    ["--config", "table_mlp", "--data.gruop", "patient"],
    ["--config", "digits_mlp", "--config", "trainer: {max_epohcs: 3}"],
    ["--config", "digits_mlp", "--config", "model: {init_args: {network: {init_args: {rate: [0.1]}}}}"],
]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["fit", "--help"], 0),
        (["fit", "--config", "digits_mlp", "-h"], 0),
        (["compare", "--help"], 0),
        (["audit", "--help"], 0),
        (["configs"], 0),
        (["configs", "nonsense"], 2),
        ([], 2),
        (["fti"], 2),
        (["fit", "--config", "digitz"], 2),
        (["fit", *SLIPS[0]], 2),
        (["fit", *SLIPS[-1]], 2),
        (["compare", *SLIPS[0]], 2),
    ],
)
def test_help_and_slips_load_no_heavy_library(arguments: list[str], status: int, tmp_path: Path):
    outcome = subprocess.run([sys.executable, "-c", CALL, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert outcome.returncode == status, outcome.stderr
    assert outcome.stderr.splitlines()[-1].split() == ["loaded:"]


@pytest.mark.parametrize("slip", SLIPS, ids=" ".join)
def test_a_slip_is_told_as_the_parser_tells_it(slip: list[str]):
    with pytest.raises(TrainingError) as quickly:
        quick.answer(["fit", *slip])
    with pytest.raises(TrainingError) as slowly:
        run(CLI, ["fit", *slip])
    assert str(quickly.value) == str(slowly.value)


def test_a_slip_in_what_only_predict_takes_is_told_with_it():
    with pytest.raises(TrainingError, match="no setting `ouput`; did you mean `output`"):
        quick.answer(["predict", "--config", "digits_mlp", "--ouput", "a.csv"])
    quick.answer(["predict", "--config", "digits_mlp", "--output", "a.csv", "--ids+", "patient"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.network.init_args", "{}"],
        ["--model.network.dict_kwargs.anything", "1"],
        ["--model.network", "my_nets.Net", "--model.network.anything", "3"],  # the parser imports it, and says so
        ["--model.network", "ConvNet", "--model.network.in_channels", "1"],
        ["--model.network.anything", "3", "--model.network", "my_nets.Net"],
        ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val_loss"],
        ["--trainer.devices", "-1"],
        ["--config", "model: {init_args: {}}"],
        ["--config", "no: [yaml"],  # which the parser explains
        ["--print_config=skip_default"],
        ["--data.help", "dubio.training.Table"],
        ["--data.sampling", "balanced", "--data.duplicates", "keep", "--model.class_weights", "balanced"],
        ["--data", "Table", "--data.group", "patient", "--data.time", "day", "--data.thousands", "."],
        ["--data", "ImageFolder", "--data.nested", "true"],
    ],
    ids=" ".join,
)
def test_what_may_be_right_is_left_to_the_parser(arguments: list[str]):
    quick.answer(["fit", "--config", "digits_mlp", *arguments])


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_command_explains_its_settings(verb: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        quick.answer([verb, "--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--trainer.max_epochs VALUE Stop training once this number of epochs is reached" in said
    assert re.search(r"--calibration\.alpha VALUE .{20,200} \(type: float, default: 0\.05\)", said)
    assert "--checkpoint.monitor VALUE" in said
    assert "default: 'val_loss'" in said
    assert "--data.help dubio.training.Table" in said
