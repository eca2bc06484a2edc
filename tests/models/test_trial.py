"""Trials in real processes: what a checkpoint may take there, and what is said where it takes more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from dubio.models import Predictor, load
from dubio.models.checkpoint.schema import KEY
from dubio.models.errors import ModelError, TrialUnavailable, UnreadableCheckpoint
from dubio.models.trial import Limits, tried

Edit = Callable[[Callable[[dict[str, Any]], object]], Path]


def test_a_good_file_passes_and_loads_as_without_a_trial(saved: Path, loaded: Predictor, rows: Tensor):
    predictor = load(saved, strategy="chain", trial=Limits())
    np.testing.assert_array_equal(predictor.predict(rows).mc_mean, loaded.predict(rows).mc_mean)
    with tried(saved, Limits()) as outcome:
        assert outcome.answer == {"outcome": "passed"}
        assert 0 < outcome.seconds < Limits().seconds
        assert 2**20 < outcome.peak < Limits().size


def test_what_is_refused_is_refused_as_without_a_trial(model_file: Path, edit: Edit):
    edit(lambda content: content[KEY]["input"].update(shape=[1, 4, 5]))
    with pytest.raises(UnreadableCheckpoint) as alone:
        load(model_file, trial=False)
    with pytest.raises(UnreadableCheckpoint) as after_trial:
        load(model_file, trial=Limits())
    assert str(after_trial.value) == str(alone.value)
    model_file.write_bytes(b"PK nonsense")
    with pytest.raises(UnreadableCheckpoint, match="is not a checkpoint"):
        load(model_file, trial=Limits())
    with pytest.raises(UnreadableCheckpoint, match="no such file"):
        load(model_file.with_name("other.ckpt"), trial=Limits())


def test_a_file_that_changes_after_its_trial_is_not_loaded(model_file: Path):
    whole = model_file.read_bytes()
    changed = pytest.raises(UnreadableCheckpoint, match="changed between its trial and its load")
    with changed, tried(model_file, Limits(), "read"):
        model_file.unlink()
        model_file.write_bytes(whole)
    with changed, tried(model_file, Limits(), "read"):
        model_file.unlink()


def test_a_network_of_the_script_itself_cannot_be_tried(saved: Path):
    with pytest.raises(TrialUnavailable, match="a class of the script that runs; move it into a module"):
        load(saved, trusted=["__main__"], trial=Limits())


def test_the_environment_sets_the_limits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DUBIO_LOAD_TRIAL", "process")
    assert Limits.of_environment() == Limits(120.0, 4 * 2**30)
    monkeypatch.setenv("DUBIO_LOAD_SECONDS", "7.5")
    monkeypatch.setenv("DUBIO_LOAD_BYTES", "1000000")
    assert Limits.of_environment() == Limits(7.5, 1000000)
    for name, wrong in [
        *(("DUBIO_LOAD_TRIAL", each) for each in ("", "thread")),
        *(("DUBIO_LOAD_SECONDS", each) for each in ("", "0", "-1", "nan", "inf", "a minute")),
        *(("DUBIO_LOAD_BYTES", each) for each in ("", "0", "1.5", "4 GiB")),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(name, wrong)
            with pytest.raises(ModelError, match=f"Expected {name} to be"):
                Limits.of_environment()
