"""One prediction for several requests: each gets its own part, and only who is at fault is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dubio.models import Prediction, Predictor, Work
from dubio.models.errors import InvalidInput
from dubio.serving.batch_prediction import join, predict, split
from dubio.serving.compute.process import ComputeProcess
from dubio.serving.compute.remote_predictor import RemotePredictor
from dubio.serving.errors import ComputationLost
from dubio.serving.repository.engine import Engine
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.source import ModelSource


def test_each_request_gets_its_rows(predictor: Predictor, bars: np.ndarray) -> None:
    batch = [bars[:1], bars[1:4], bars[4:4], bars[4:9]]
    whole = predictor.predict(join(batch))
    for answers in (predict(predictor, batch, None, Work.FLAG), split(whole, batch)):
        assert [len(answer.label) for answer in answers if isinstance(answer, Prediction)] == [1, 3, 0, 5]
        for field in ("probabilities", "mc_mean", "p_value"):
            together = np.concatenate([getattr(answer, field) for answer in answers])
            np.testing.assert_allclose(together, getattr(whole, field), atol=1e-6)
    assert join([bars]) is bars  # what is alone is not copied


def test_only_who_is_at_fault_is_refused(predictor: Predictor, bars: np.ndarray) -> None:
    batch = [bars[:2], np.full_like(bars[:1], np.nan), bars[2:3]]
    first, bad, last = predict(predictor, batch, None, Work.FLAG)
    assert isinstance(bad, InvalidInput)
    for answer, rows in ((first, batch[0]), (last, batch[2])):
        assert isinstance(answer, Prediction)
        np.testing.assert_allclose(answer.mc_mean, predictor.predict(rows).mc_mean, atol=1e-6)


def test_where_nothing_is_computed_any_more_all_are_told_and_nobody_tries_again(
    checkpoint: Path, bars: np.ndarray
) -> None:
    process = ComputeProcess(trials=False)
    process.host(Engine(Loader(device="cpu", trusted=(), strategy="loop", trial=False), few=1, most=1), prepare=int)
    try:
        key, facts = process.call("load", ModelSource("bars", checkpoint))
        remote = RemotePredictor(facts, process, key)
        batch = [bars[:1], bars[1:3]]
        answers = predict(remote, batch, 4, Work.MC)
        assert [answer.samples for answer in answers if isinstance(answer, Prediction)] == [4, 4]
        process.close()
        answers = predict(remote, batch, None, Work.FLAG)
        assert [type(answer) for answer in answers] == [ComputationLost, ComputationLost]
        assert answers[0] is answers[1]
    finally:
        process.close()
