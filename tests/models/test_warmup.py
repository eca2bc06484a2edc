from __future__ import annotations

import pytest

from dubio.models import Ensemble, Predictor, warmup


def test_the_batches_are_noise_from_the_range_seen_in_training(trained: Predictor):
    batches = list(warmup.batches(trained))
    assert [batch.shape for batch in batches] == [(rows, 1, 4, 4) for rows in (1, 8, 32)]
    low, high = trained.input.low, trained.input.high
    assert all(low <= batch.min() and batch.max() <= high for batch in batches)
    for batch, again in zip(batches, warmup.batches(trained), strict=True):
        assert (batch == again).all()


def test_batches_that_would_take_gigabytes_are_not_tried(trained: Predictor, monkeypatch: pytest.MonkeyPatch):
    for most, rows in [(trained.row_bytes - 1, [1]), (trained.row_bytes * 8, [1, 8]), (2**30, [1, 8, 32])]:
        monkeypatch.setattr(warmup, "MAX_LIVE", most)
        assert [len(batch) for batch in warmup.batches(trained)] == rows


def test_batches_that_would_take_minutes_are_not_tried(trained: Predictor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(warmup, "MAX_SECONDS", 0.0)  # less than anything takes
    assert [len(batch) for batch in warmup.batches(trained)] == [1]


def test_a_row_takes_what_the_results_of_the_network_take(trained: Predictor):
    # 16 inputs are normalised, then 24 and 20 units and 3 logits: more than the inputs, less than all copies together.
    assert 4 * 16 <= trained.row_bytes <= 4 * 8 * (16 + 24 + 20 + 3)
    other = _other(trained)
    assert Ensemble.build([trained, other]).row_bytes == max(trained.row_bytes, other.row_bytes)


def _other(trained: Predictor) -> Predictor:
    assert trained.detector is not None
    assert trained.provenance is not None
    built = Predictor.build(
        trained.network, trained.network_spec, trained.input, trained.classes, num_samples=4, seed=9, strategy="loop"
    )
    return built.calibrated(trained.temperature, trained.detector, trained.provenance)
