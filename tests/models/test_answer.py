"""Predictors and ensembles answer alike: at their bounds, and where only the members overflow."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dubio.models import Ensemble, Predictor, Work
from dubio.models.errors import InvalidInput


@pytest.fixture(params=["predictor", "ensemble"])
def fragile_model(request: pytest.FixtureRequest, fragile: Predictor) -> Predictor | Ensemble:
    return fragile if request.param == "predictor" else Ensemble.build([fragile, dataclasses.replace(fragile)])


@pytest.mark.parametrize("work", [Work.MC, Work.FLAG])
@pytest.mark.parametrize("samples", [None, 2, "auto"])
def test_values_that_overflow_the_members_alone_are_refused_by_row(
    fragile_model: Predictor | Ensemble, samples: Any, work: Work
):
    x = torch.tensor([[1.0, 1.0], [1e38, 1.0]])
    # The network itself can process them: only members, whose kept units count ten times as much, cannot.
    assert np.isfinite(fragile_model.predict(x, work=Work.DETERMINISTIC).probabilities).all()
    with pytest.raises(InvalidInput, match=r"input 1 .*overflow .*magnitude 1e\+38"):
        fragile_model.predict(x, samples=samples, work=work)


def test_all_members_may_be_asked_by_their_number_and_not_one_more(fragile_model: Predictor | Ensemble):
    x, size = torch.tensor([[0.2, 0.7]]), fragile_model.committee.num_samples
    for samples in (2, size):
        assert fragile_model.predict(x, samples=samples).mc_samples.tolist() == [samples]
    assert fragile_model.predict(x, samples=size).flagged is not None or fragile_model.no_promise
    for samples in (1, size + 1):
        with pytest.raises(InvalidInput, match=rf"integer in \[2, {size}\].*but got {samples}"):
            fragile_model.predict(x, samples=samples)


def test_what_was_not_computed_is_missed_by_name(trained: Predictor, rows: Tensor):
    deterministic = trained.predict(rows, work=Work.DETERMINISTIC)
    assert deterministic.mc_samples.tolist() == [0] * len(rows)
    for name in ("mc_label", "mc_mean", "mc_std", "mutual_information", "p_value", "flagged", "level", "reasons"):
        with pytest.raises(ValueError, match=r"asked for; call predict\(\) with more `work`"):
            getattr(deterministic, name)
    assert trained.predict(rows, work=Work.MC).mc_mean.shape == (len(rows), 3)
