"""Real checkpoints, written in a second, and real servers on free ports."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from torch import nn

from dubio import models
from dubio.models import MLP, InputSpec, NetworkSpec, Predictor, Provenance, Temperature, TextCNN
from dubio.models.checkpoint.explanation_record import Example
from dubio.models.checkpoint.state_dict import sha256
from dubio.models.inputs.tabular import CategoricalColumn, NumericColumn, Table, width
from dubio.models.inputs.text import TokenizerSpec, Tokens
from dubio.serving.app import create_app
from dubio.serving.settings import Settings
from dubio.training import answer_promises, example, explanations
from dubio.uncertainty import AdaptiveSampling, Detector
from dubio.uncertainty.detection.label_sets import LabelSets
from tests.serving.command import Command

SIDE = 8
HIGH = 16.0


def draw_bars(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [rows, 1, 8, 8] of 0..16 with one bright bar; its place, out of four, is the class."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, rows)
    images = generator.uniform(0, 5, (rows, 1, SIDE, SIDE))
    for image, label in zip(images, labels, strict=True):
        image[0, :, 2 * label : 2 * label + 2] += 10
    return np.clip(images, 0, HIGH).round().astype(np.float32), labels


FOUR_CLASSES = tuple(f"class-{i}" for i in range(4))


def write_checkpoint(
    path: Path,
    network: nn.Module,
    spec: NetworkSpec,
    inputs: InputSpec,
    rows: Callable[[int, int], tuple],
    classes: tuple[str, ...] = FOUR_CLASSES,
) -> Path:
    """Calibrate `network` on `rows(count, seed)` and write what training would."""
    predictor = Predictor.build(network.eval(), spec, inputs, classes, num_samples=16, seed=3, strategy="loop")
    train_x, train_y = rows(200, 1)
    predictor = predictor.calibrated(Temperature(deterministic=1.2, mc=1.1), None, None)
    select, calibration = predictor.outputs(rows(200, 2)[0]), predictor.outputs(rows(300, 3)[0])
    detector = Detector.fit(predictor.deterministic(train_x), torch.from_numpy(train_y), select, k=10)
    stopping = AdaptiveSampling.fit(detector, select, 300, stages=(4, 8)).calibrate(detector, calibration)
    detector = detector.calibrate(calibration)
    provenance = Provenance(
        data="bars", data_sha256="0" * 64, weights_sha256=sha256(network.state_dict()), date="2026-01-01", versions={}
    )
    truth = [torch.from_numpy(rows(count, seed)[1]) for count, seed in ((200, 2), (300, 3))]
    promises = answer_promises.fit(
        predictor,
        detector,
        stopping,
        (select, truth[0]),
        (calibration, truth[1]),
        detector.least_rounding,
        (0.02, 0.1),
        LabelSets("lac", "all", 0.95),
    )
    record = explanations.record(
        detector,
        calibration,
        detector.least_rounding,
        inputs,
        torch.from_numpy(train_x),
        np.arange(1000, 1200),
        5000,
        8000 if inputs.kind in ("image", "text") else 0,
        None,
    )
    predictor = predictor.calibrated(
        predictor.temperature, detector, provenance, stopping, **promises, explaining=record
    )
    raw = example.choose(predictor, torch.from_numpy(rows(200, 2)[0]), truth[0])
    kept = None if raw is None else Example(raw=raw, source="held_out")
    predictor = replace(predictor, explaining=record.model_copy(update={"example": kept}))
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".source")
    torch.save({"state_dict": {f"network.{name}": value for name, value in network.state_dict().items()}}, source)
    models.save(predictor, source, path)
    return path


def train_bars(path: Path, seed: int) -> Path:
    """Write an MLP that learnt to tell the four bars apart."""
    arguments = {"in_features": SIDE * SIDE, "widths": [32, 16], "num_classes": 4, "rates": [0.3, 0.2]}
    inputs = InputSpec(kind="image", shape=(1, SIDE, SIDE), mean=(4.0,), std=(4.0,), low=0.0, high=HIGH)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MLP(**arguments)
        x, y = (torch.from_numpy(part) for part in draw_bars(256, 0))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network((x - 4) / 4), y).backward()
            optimizer.step()
    return write_checkpoint(
        path, network, NetworkSpec(class_path="dubio.models.MLP", init_args=arguments), inputs, draw_bars
    )


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of bars; calibrated."""
    return train_bars(tmp_path_factory.mktemp("runs") / "bars" / "model.ckpt", seed=0)


@pytest.fixture(scope="session")
def pixels_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained MLP over images of 8 x 8 pixels in colour, from 0 to 255."""
    arguments = {"in_features": 3 * SIDE * SIDE, "widths": [16], "num_classes": 4, "rates": [0.5]}
    inputs = InputSpec(kind="image", shape=(3, SIDE, SIDE), mean=(64.0,) * 3, std=(64.0,) * 3, low=0.0, high=255.0)

    def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        return generator.integers(0, 256, (count, 3, SIDE, SIDE)).astype(np.float32), generator.integers(0, 4, count)

    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = MLP(**arguments)
    path = tmp_path_factory.mktemp("runs") / "pixels.ckpt"
    return write_checkpoint(
        path, network, NetworkSpec(class_path="dubio.models.MLP", init_args=arguments), inputs, rows
    )


@pytest.fixture(scope="session")
def second_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same task learnt from other first weights: the model's next version, or the other half of an ensemble."""
    return train_bars(tmp_path_factory.mktemp("runs") / "second" / "model.ckpt", seed=1)


@pytest.fixture(scope="session")
def numbers_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained MLP over rows of five numbers."""
    arguments = {"in_features": 5, "widths": [8], "num_classes": 4, "rates": [0.5]}
    inputs = InputSpec(kind="numbers", shape=(5,), mean=(0.0,) * 5, std=(1.0,) * 5, low=-4.0, high=4.0)

    def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        return generator.normal(size=(count, 5)).clip(-4, 4).astype(np.float32), generator.integers(0, 4, count)

    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = MLP(**arguments)
    path = tmp_path_factory.mktemp("runs") / "row.ckpt"
    return write_checkpoint(
        path, network, NetworkSpec(class_path="dubio.models.MLP", init_args=arguments), inputs, rows
    )


COLUMNS = [
    NumericColumn(kind="numeric", name="age", low=18, high=90, fill=40, missing=False),
    NumericColumn(kind="numeric", name="income", low=0, high=9000, fill=2500, missing=True),
    CategoricalColumn(kind="categorical", name="city", categories=["Bern", "Köln"], missing=True),
    CategoricalColumn(kind="categorical", name="member", categories=["false", "true"], missing=False),
]


@pytest.fixture(scope="session")
def table_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained MLP over rows of four named columns, which are ten numbers."""
    size = width(COLUMNS)
    arguments = {"in_features": size, "widths": [16], "num_classes": 4, "rates": [0.5]}
    scales = {0: (50.0, 20.0), 1: (3000.0, 2000.0)}
    mean, std = zip(*(scales.get(i, (0.0, 1.0)) for i in range(size)), strict=True)
    inputs = InputSpec(kind="table", shape=(size,), mean=mean, std=std, low=0, high=9000, columns=COLUMNS)

    def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(seed)
        instances = [
            {
                "age": int(draw.integers(18, 91)),
                "income": draw.choice([None, float(draw.uniform(0, 9000))], p=[0.1, 0.9]),
                "city": draw.choice(["Bern", "Köln", None]),
                "member": bool(draw.integers(2)),
            }
            for _ in range(count)
        ]
        return Table(COLUMNS).read(instances), draw.integers(0, 4, count)

    with torch.random.fork_rng():
        torch.manual_seed(4)
        network = MLP(**arguments)
    path = tmp_path_factory.mktemp("runs") / "table.ckpt"
    return write_checkpoint(
        path, network, NetworkSpec(class_path="dubio.models.MLP", init_args=arguments), inputs, rows
    )


WORDS = ["[PAD]", "[UNK]", "my", "card", "is", "lost", "where", "the", "money", "?", "über", "now"]


@pytest.fixture(scope="session")
def text_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network over texts of at most six words, of which it knows ten."""
    arguments = {"vocabulary": len(WORDS), "features": 8, "width": 8, "padding": 0.0, "num_classes": 4}
    tokenizer = TokenizerSpec(kind="word", vocabulary=WORDS, merges=[], lowercase=True, length=6)
    inputs = InputSpec(
        kind="text", shape=(6,), mean=(0.0,), std=(1.0,), low=0, high=len(WORDS) - 1, tokenizer=tokenizer
    )

    def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(seed)
        texts = [" ".join(draw.choice(WORDS[2:], draw.integers(1, 8))) for _ in range(count)]
        return Tokens(tokenizer).read(texts), draw.integers(0, 4, count)

    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = TextCNN(**arguments)
    path = tmp_path_factory.mktemp("runs") / "text.ckpt"
    return write_checkpoint(
        path, network, NetworkSpec(class_path="dubio.models.TextCNN", init_args=arguments), inputs, rows
    )


GATED = '''
import os, pathlib, time
from dubio.models import MLP

class GatedMLP(MLP):
    """An MLP that stands still for as long as the file DUBIO_TEST_GATE names exists."""

    def forward(self, x):
        gate = pathlib.Path(os.environ["DUBIO_TEST_GATE"])
        while gate.exists():
            gate.with_suffix(".waiting").touch()
            time.sleep(0.01)
        return super().forward(x)
'''


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While this file exists, the gated network stands still; `<gate>.waiting` appears once it does."""
    monkeypatch.setenv("DUBIO_TEST_GATE", str(tmp_path / "gate"))
    return tmp_path / "gate"


@pytest.fixture
def gated_checkpoint(numbers_checkpoint: Path, gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model of rows, its network swapped for one that waits at the gate; importable as `gated_networks`."""
    (tmp_path / "gated_networks.py").write_text(GATED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gated_networks", raising=False)
    content = torch.load(numbers_checkpoint, weights_only=True)
    content["dubio"]["network"]["class_path"] = "gated_networks.GatedMLP"
    torch.save(content, tmp_path / "gated.ckpt")
    return tmp_path / "gated.ckpt"


@pytest.fixture(scope="session")
def predictor(checkpoint: Path) -> Predictor:
    """What the service loads, loaded beside it."""
    return models.load(checkpoint)


@pytest.fixture(scope="session")
def bars() -> np.ndarray:
    """Sixty raw images like those of training."""
    return draw_bars(60, 9)[0]


@pytest.fixture
def settings() -> Callable[..., Settings]:
    """Settings for tests: one torch thread, as everywhere in the tests."""
    return _settings


def _settings(**given: object) -> Settings:
    # A busy disk may take long to make a store's tables.
    return Settings(**{"torch_threads": 1, "store_wait_seconds": 60, **given})  # type: ignore[arg-type]


@contextmanager
def _serve(settings: Settings) -> Iterator[str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    # A client keeps a connection for 5 s, and one that stalls then must not find it closed.
    config = uvicorn.Config(create_app(settings).asgi, lifespan="on", log_config=None, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="session")
def serve() -> Callable[[Settings], AbstractContextManager[str]]:
    """Serves settings on a free port for as long as the context lasts; gives the base URL."""
    return _serve


@pytest.fixture(scope="session")
def url(checkpoint: Path, numbers_checkpoint: Path) -> Iterator[str]:
    """A server with two models, `bars` (the default) and `row`."""
    models_given = (str(checkpoint), str(numbers_checkpoint))
    with _serve(_settings(models=models_given, max_rows=64, max_body_bytes=256 * 1024)) as base:
        yield base


@pytest.fixture(scope="session")
def kinds(
    serve: Callable, numbers_checkpoint: Path, table_checkpoint: Path, text_checkpoint: Path, pixels_checkpoint: Path
) -> Iterator[httpx.Client]:
    """A client of a server with a model of each kind of input."""
    models = tuple(map(str, (numbers_checkpoint, table_checkpoint, text_checkpoint, pixels_checkpoint)))
    given = _settings(models=models, max_rows=64)
    with serve(given) as base, httpx.Client(base_url=base, timeout=30) as client:
        yield client


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """A client of that server."""
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def command() -> Command:
    """`dubio-serve`, as it is run."""
    return Command()
