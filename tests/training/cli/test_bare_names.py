from __future__ import annotations

from pathlib import Path

import pytest

from dubio import models, training
from dubio.training.cli.bare_names import named

NETWORK = "model: {class_path: Classifier, init_args: {network: {class_path: ResNet}}}"
ALL = {*models.__all__, *training.__all__}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--config", "own.yaml", "--data=Table"], {"Classifier", "ResNet", "Table"}),
        (["--config", "digits_mlp"], {"Classifier", "MLP", "Digits"}),
        (["--config", NETWORK, "--trainer.callbacks", "[{class_path: MaxNorm}]"], {"Classifier", "ResNet", "MaxNorm"}),
        (["--data", "my_data.Rows", "--data.path", "Table.csv"], {"Table"}),  # one too many does no harm
        (["--name", "x"], set()),
        (["--data.help"], ALL),
        (["--data.help=Table"], ALL),
        (["--model.network", "net.yaml"], ALL),
    ],
)
def test_the_classes_that_are_imported_are_those_that_are_named(
    arguments: list[str], names: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(NETWORK)
    assert named(arguments) == names
