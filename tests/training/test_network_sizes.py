from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from dubio.models import InputSpec, RecurrentNet, TransformerNet, load
from dubio.training import Digits, network_sizes
from dubio.training.cli.main import main
from dubio.training.splits.dataset import Dataset

# Everything that the data decide is left out.
NETWORKS = {
    "MLP": {"widths": [32], "rates": [0.3]},
    "ConvNet": {"widths": [8, 16], "rates": [0.1, 0.1], "dense": 32},
    "ResNet": {"widths": [8, 16], "blocks": 1},
    "RecurrentNet": {"width": 16},
    "TransformerNet": {"width": 16, "layers": 1, "heads": 2, "feedforward": 32},
    "DropConnectMLP": {"widths": [32], "rates": [0.3]},
}


class Own(nn.Module):
    """A network of one's own: it has one of the names, and not the others."""

    def __init__(self, num_classes: int = 3, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


class OnlySizes(nn.Sequential):
    """A network of which the data decide everything."""

    def __init__(self, in_features: int = 3, num_classes: int = 3) -> None:
        super().__init__(nn.Flatten(), nn.Linear(in_features, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, num_classes))


class NoDefaults(OnlySizes):
    """As most write it."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)


class Undecided(OnlySizes):
    """Texts have a vocabulary, images have none."""

    def __init__(self, vocabulary: int, num_classes: int) -> None:
        super().__init__(vocabulary, num_classes)


def _fit(tmp_path: Path, class_path: str, init_args: dict[str, object]) -> None:
    config = {"network": {"class_path": class_path, "init_args": init_args}}
    (tmp_path / "net.yaml").write_text(
        yaml.safe_dump({"name": "net", "model": {"class_path": "dubio.training.Classifier", "init_args": config}})
    )
    data = ["--data", "dubio.training.Digits", "--runs", str(tmp_path)]
    quick = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--calibration.num_samples", "8"]
    bars = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    main(["fit", "--config", str(tmp_path / "net.yaml"), *data, *quick, *bars])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("MLP", "ConvNet") else pytest.mark.slow) for name in NETWORKS]
)
def test_nobody_has_to_count_pixels_or_classes(name: str, tmp_path: Path):
    _fit(tmp_path, f"dubio.models.{name}", NETWORKS[name])
    predictor = load(tmp_path / "net" / "model.ckpt")
    assert predictor.predict(torch.zeros(2, 1, 8, 8)).probabilities.shape == (2, 10)
    assert predictor.network_spec.init_args["num_classes"] == 10  # the file says what was built


def test_a_network_of_ones_own_may_have_some_of_the_names(tmp_path: Path):
    _fit(tmp_path, "tests.training.test_network_sizes.Own", {"width": 8})
    predictor = load(tmp_path / "net" / "model.ckpt", trusted=["tests.training.test_network_sizes"])
    assert predictor.network_spec.init_args == {"num_classes": 10, "width": 8}


@pytest.mark.parametrize("name", ["OnlySizes", pytest.param("NoDefaults", marks=pytest.mark.slow)])
def test_a_network_may_have_no_other_arguments_than_sizes(name: str, tmp_path: Path):
    _fit(tmp_path, f"tests.training.test_network_sizes.{name}", {})
    path = tmp_path / "net" / "model.ckpt"
    predictor = load(path, trusted=["tests.training.test_network_sizes"])
    assert predictor.network_spec.init_args == {"in_features": 64, "num_classes": 10}
    path.unlink()
    main(["fit", "--config", str(tmp_path / "net" / "config.yaml"), "--runs", str(tmp_path)])
    assert path.is_file()


def test_a_size_that_nobody_decides_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        _fit(tmp_path, "tests.training.test_network_sizes.Undecided", {})
    message = "Expected `model.init_args.network.init_args.vocabulary`, for digits (scikit-learn) does not decide it"
    assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        _fit(tmp_path, "tests.training.test_network_sizes.NoDefaults", {"in_features": 65})
    assert "does not take inputs of shape [1, 8, 8]" in capsys.readouterr().err


def test_what_was_given_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        _fit(tmp_path, "dubio.models.MLP", {"widths": [32], "rates": [0.3], "in_features": 65})
    assert "does not take inputs of shape [1, 8, 8]" in capsys.readouterr().err
    assert "length" not in network_sizes.left_out(TransformerNet, {"length": 40})


def test_text_decides_vocabulary_and_length_and_leaves_the_width_of_embeddings_alone():
    spec = InputSpec.model_construct(kind="text", shape=(30,), mean=(0.0,), std=(1.0,), low=0.0, high=499.0)

    class Texts(Digits):
        def read(self) -> Dataset:
            return replace(super().read(), input=spec)

    data = Texts()
    left = network_sizes.left_out(RecurrentNet, {"width": 64})
    assert {name: network_sizes.of(name, default, data) for name, default in left.items()} == {
        "num_classes": 10,
        "features": 28,
        "vocabulary": 500,
        "padding": 0,
    }
    assert network_sizes.of("length", 28, data) == 30
