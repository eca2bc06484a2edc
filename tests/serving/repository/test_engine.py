"""Models by number, each with the threads that suit it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dubio.models import Predictor, Work
from dubio.models.errors import UnreadableCheckpoint
from dubio.serving.repository import engine as module
from dubio.serving.repository.engine import Engine
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.source import ModelSource


@pytest.fixture
def threads() -> Iterator[None]:
    """A test may set torch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def engine(threads: None) -> Engine:
    return Engine(Loader(device="cpu", trusted=(), strategy="loop", trial=False), few=1, most=2)


def test_it_answers_as_the_model_does_until_it_lets_it_go(
    engine: Engine, checkpoint: Path, predictor: Predictor, bars: np.ndarray
) -> None:
    engine.try_device()
    key, facts = engine.load(ModelSource("bars", checkpoint))
    other, _ = engine.load(ModelSource("bars", checkpoint, version="2"))
    assert key != other
    assert facts.classes == predictor.classes
    answer, expected = engine.predict(key, bars, None, Work.FLAG), predictor.batch_invariant().predict(bars)
    np.testing.assert_array_equal(answer.probabilities, expected.probabilities)
    np.testing.assert_allclose(answer.mc_mean, expected.mc_mean, atol=1e-5)
    assert engine.predict(key, bars, 4, Work.MC).samples == 4
    assert engine.predict(key, bars, None, Work.DETERMINISTIC).monte_carlo is None
    explained = engine.explain(key, bars, answer).explanations
    assert explained is not None
    assert len(explained) == len(bars)
    engine.forget(key)
    with pytest.raises(KeyError):
        engine.predict(key, bars, None, Work.FLAG)
    engine.predict(other, bars, None, Work.FLAG)


@pytest.mark.parametrize(("seconds", "threads_taken"), [(1.0, 1), (0.0, 2)])
def test_a_model_of_long_predictions_takes_all_threads(
    engine: Engine,
    checkpoint: Path,
    bars: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seconds: float,
    threads_taken: int,
) -> None:
    monkeypatch.setattr(module, "LONG_ROW_SECONDS", seconds)
    loaded_with: list[int] = []
    read = Loader.read

    def reading(loader: Loader, source: ModelSource):
        loaded_with.append(torch.get_num_threads())
        return read(loader, source)

    monkeypatch.setattr(Loader, "read", reading)
    with caplog.at_level(logging.INFO, "dubio"):
        key, _ = engine.load(ModelSource("bars", checkpoint))
    assert loaded_with == [1, 2][:threads_taken]
    assert ("loading it again for all of them" in caplog.text) == (threads_taken > 1)
    torch.set_num_threads(3)  # another model's
    engine.predict(key, bars, None, Work.FLAG)
    assert torch.get_num_threads() == threads_taken


def test_what_cannot_be_loaded_has_no_number(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "broken.ckpt").write_bytes(b"nothing")
    with pytest.raises(UnreadableCheckpoint):
        engine.load(ModelSource("broken", tmp_path / "broken.ckpt"))
    assert engine._hosted == {}
