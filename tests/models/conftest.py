"""A small predictor that is really trained and really calibrated, and the file it was saved to."""

from __future__ import annotations

import copy
import shutil
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dubio.models import MLP, InputSpec, NetworkSpec, Predictor, Provenance, Temperature, load, save
from dubio.models.checkpoint.explanation_record import ExplanationRecord
from dubio.models.checkpoint.schema import KEY
from dubio.models.checkpoint.state_dict import sha256
from dubio.uncertainty import AdaptiveSampling, Detector
from dubio.uncertainty.detection.label_sets import LabelSets
from dubio.uncertainty.detection.promises import AnswerPromises, with_all_members, with_as_many_as_it_takes
from dubio.uncertainty.detection.single_scores import SingleScores

INIT_ARGS = {"in_features": 16, "widths": [24, 20], "num_classes": 3, "rates": [0.5, 0.3]}
CLASSES = ("left", "middle", "right")
SHAPE = (1, 4, 4)
# By name: which strategy is the fastest differs by machine, and with it the last bits of an answer.
STRATEGY = "chain"


def blobs(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of 4 x 4 pixels in [0, 16]: noise, and one bright column that is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (rows,), generator=generator)
    x = torch.rand((rows, *SHAPE), generator=generator) * 8
    x[torch.arange(rows), 0, :, labels] += 5 + 3 * torch.rand((rows, 4), generator=generator)
    return x, labels


def train() -> Predictor:
    """A calibrated predictor, in about a second."""
    x, labels = blobs(400, seed=1)
    input_spec = InputSpec(
        kind="image",
        shape=SHAPE,
        mean=(float(x.mean()),),
        std=(float(x.std()),),
        low=float(x.min()),
        high=float(x.max()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MLP(**INIT_ARGS)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network((x - x.mean()) / x.std()), labels)
            loss.backward()
            optimizer.step()
    network.eval().requires_grad_(False)
    spec = NetworkSpec(class_path="dubio.models.MLP", init_args=copy.deepcopy(INIT_ARGS))
    predictor = Predictor.build(network, spec, input_spec, CLASSES, num_samples=16, seed=3, strategy=STRATEGY)
    temperature = Temperature(deterministic=1.25, mc=0.8)
    predictor = predictor.calibrated(temperature, None, None)
    promise = {"alpha": 0.1, "delta": 0.1}
    (select_x, select_y), (calibration_x, calibration_y) = blobs(100, seed=2), blobs(150, seed=3)
    select, calibration = predictor.outputs(select_x), predictor.outputs(calibration_x)
    detector = Detector.fit(predictor.deterministic(x), labels, select, k=10).calibrate(calibration, **promise)
    stopping = AdaptiveSampling.fit(detector, select, 150, **promise, stages=(4, 8)).calibrate(
        detector, calibration, **promise
    )
    provenance = Provenance(
        data="blobs",
        data_sha256="0" * 64,
        weights_sha256=sha256(network.state_dict()),
        date="2026-01-01T00:00:00+00:00",
        versions={"torch": str(torch.__version__)},
    )
    ask = partial(with_all_members, predictor.classify, detector, rounding=detector.least_rounding)
    auto = partial(
        with_as_many_as_it_takes, predictor.classify, detector, rounding=detector.least_rounding, stopping=stopping
    )
    promises = [
        AnswerPromises.fit(
            each(select, select_y), each(calibration, calibration_y), flag, (0.05, 1e-5), LabelSets("lac", "all", 0.9)
        )
        for each, flag in ((ask, detector.calibration), (auto, stopping.calibration))
    ]
    record = ExplanationRecord(
        ranks=SingleScores.fit(detector, calibration).ranks_SN,
        rows=torch.arange(400) + 7,
        examples=((x[:100] - input_spec.low) / (input_spec.high - input_spec.low) * 255).to(torch.uint8),
    )
    return predictor.calibrated(temperature, detector, provenance, stopping, *promises, explaining=record)


@pytest.fixture(scope="session")
def trained() -> Predictor:
    return train()


@pytest.fixture(scope="session")
def rows() -> Tensor:
    """Ten inputs like the training data."""
    return blobs(10, seed=4)[0]


@pytest.fixture(scope="session")
def saved(trained: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The predictor as a file; for reading only."""
    folder = tmp_path_factory.mktemp("saved")
    torch.save(lightning_content(trained), folder / "last.ckpt")
    save(trained, folder / "last.ckpt", folder / "model.ckpt")
    return folder / "model.ckpt"


@pytest.fixture
def model_file(saved: Path, tmp_path: Path) -> Path:
    """The predictor as a file that the test may spoil."""
    return Path(shutil.copy(saved, tmp_path / "model.ckpt"))


@pytest.fixture
def edit(model_file: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Change the content of the saved file with a function, and write it again."""

    def change(function: Callable[[dict[str, Any]], object]) -> Path:
        content = torch.load(model_file, weights_only=True)
        function(content)
        model_file.unlink()
        torch.save(content, model_file)
        return model_file

    return change


@pytest.fixture(scope="session")
def loaded(saved: Path) -> Predictor:
    return load(saved, strategy=STRATEGY)


@pytest.fixture(scope="session")
def fragile() -> Predictor:
    """A rate of .9, and weights of 1: what a member keeps counts ten times as much, so it overflows first."""
    arguments = {"in_features": 2, "widths": [24], "num_classes": 2, "rates": [0.9]}
    network = MLP(**arguments).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    network.head.weight[1] = -0.1
    network.head.weight[0] = 0.1
    spec = InputSpec(kind="numbers", shape=(2,), mean=(0.0, 0.0), std=(1.0, 1.0), low=0.0, high=1.0)
    built = Predictor.build(
        network, NetworkSpec(class_path="dubio.models.MLP", init_args=arguments), spec, ("a", "b"), num_samples=16
    )
    x = torch.rand((100, 2), generator=torch.Generator().manual_seed(0))
    outputs = built.outputs(x)
    detector = Detector.fit(outputs.deterministic, torch.arange(100) % 2, outputs, ["mutual_information"])
    detector = detector.calibrate(outputs)
    stopping = AdaptiveSampling.fit(detector, outputs, 100, stages=(4,)).calibrate(detector, outputs)
    return built.calibrated(Temperature(), detector, None, stopping)


@pytest.fixture(scope="session")
def lightning_file(trained: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as Lightning writes it, not calibrated; for reading only."""
    path = tmp_path_factory.mktemp("lightning") / "last.ckpt"
    torch.save(lightning_content(trained), path)
    return path


def lightning_content(predictor: Predictor) -> dict[str, Any]:
    """What Lightning keeps in a checkpoint, around the predictor's weights."""
    state = {f"network.{name}": tensor for name, tensor in predictor.network.state_dict().items()}
    return {
        "epoch": 3,
        "global_step": 60,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {**state, "val_accuracy.mean_value": torch.tensor(0.5)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(0.25)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(60.0), "exp_avg": torch.ones(4)}}}],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.01, "network": {"class_path": "dubio.models.MLP", "init_args": dict(INIT_ARGS)}},
    }


@pytest.fixture
def trusting(
    edit: Callable[[Callable[[dict[str, Any]], object]], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[Path, str]]:
    """A checkpoint whose network is a class of a module that runs some code when imported, and the module's name."""

    def write(code: str) -> tuple[Path, str]:
        folder = tmp_path / "own"
        folder.mkdir()
        name = f"own_{tmp_path.name.replace('-', '_')}"
        text = f"from dubio.models import MLP\n\n\nclass Own(MLP):\n    pass\n\n\n{textwrap.dedent(code)}\n"
        (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(folder)
        return edit(lambda content: content[KEY]["network"].update(class_path=f"{name}.Own")), name

    return write
