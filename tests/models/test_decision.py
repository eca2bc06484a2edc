"""Decisions and label sets of a real predictor, from calibration to a file and back to answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dubio.models import Predictor, Work, load
from dubio.models.checkpoint.schema import KEY
from dubio.models.decision import LabelSetRows, members, unite
from dubio.models.errors import ModelError, UnreadableCheckpoint
from dubio.models.prediction import NOT_CALIBRATED, NOT_CALIBRATED_FOR_SAMPLES, Prediction


@pytest.fixture(scope="module")
def varied(rows: Tensor) -> Tensor:
    """Inputs like the training data, blends of them, and strangers."""
    strangers = 20 * torch.rand((10, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    return torch.cat([rows, (rows + rows.flip(0)) / 2, strangers, rows * 3])


@pytest.mark.parametrize("samples", [None, "auto"])
def test_an_answer_is_accepted_by_the_rule_that_was_calibrated(trained: Predictor, varied: Tensor, samples: str | None):
    prediction = trained.predict(varied, samples=samples)
    promises = trained.promises if samples is None else trained.auto_promises
    kept, refused = promises.acceptances
    assert (kept.refusal, refused.refusal) == (None, "too_few_rows")
    by_confidence = {
        "mc_probability": prediction.mc_mean.max(1),
        "probability": prediction.probabilities.max(1),
        "least_probability": np.minimum(prediction.mc_mean.max(1), prediction.probabilities.max(1)),
        "mc_margin": np.sort(prediction.mc_mean)[:, -1] - np.sort(prediction.mc_mean)[:, -2],
    }
    sure = by_confidence[kept.confidence] >= kept.threshold
    expected = sure & (prediction.label == prediction.mc_label) & ~prediction.flagged
    # The rule's limit on the score lies a little below that of the flag.
    assert not (prediction.accepted & ~expected).any()
    assert (expected & ~prediction.accepted).sum() <= 2
    assert 0 < prediction.accepted.sum() < len(varied)
    assert [each.risk for each in prediction.decisions] == [0.05, 1e-5]
    assert (prediction.decisions[1].accepted, prediction.decisions[1].reason) == (None, "too_few_rows")


@pytest.mark.parametrize("samples", [None, "auto"])
def test_a_label_set_is_that_of_the_members_mean(trained: Predictor, varied: Tensor, samples: str | None):
    prediction = trained.predict(varied, samples=samples)
    rule = (trained.promises if samples is None else trained.auto_promises).label_sets
    limit = float(rule.quantiles_G)
    held = 1 - prediction.mc_mean <= limit
    held[np.arange(len(held)), prediction.mc_label] = True
    near = np.abs(1 - prediction.mc_mean - limit) < 1e-6
    assert (near | (prediction.label_set == held)).all()
    assert prediction.label_sets.coverage == 0.9


def test_fewer_members_decide_nothing(trained: Predictor, rows: Tensor):
    prediction = trained.predict(rows, samples=8)
    assert prediction.accepted is prediction.label_set is None
    assert [(each.risk, each.reason) for each in prediction.decisions] == [
        (0.05, NOT_CALIBRATED_FOR_SAMPLES),
        (1e-5, NOT_CALIBRATED_FOR_SAMPLES),
    ]
    assert prediction.label_sets.reason == NOT_CALIBRATED_FOR_SAMPLES


def test_without_promises_there_is_a_flag_and_no_decision(trained: Predictor, rows: Tensor):
    bare = dataclasses.replace(trained, promises=None, auto_promises=None)
    for samples in (None, "auto"):
        prediction = bare.predict(rows, samples=samples)
        assert prediction.flagged is not None
        assert prediction.accepted is prediction.label_set is None
        assert prediction.decisions[0].reason == prediction.label_sets.reason == NOT_CALIBRATED
    assert (bare.describe()["decisions"], bare.describe()["label_set"]) == ([], None)


def test_only_what_is_asked_for_is_computed(trained: Predictor, rows: Tensor):
    without = trained.predict(rows, work=Work.MC)
    assert without.label_sets is without.decisions is None
    sets = trained.predict(rows, work=Work.LABEL_SET)
    assert sets.label_set is not None
    assert sets.flags is sets.decisions is None
    with pytest.raises(ModelError, match="more `work`"):
        _ = sets.accepted


def test_other_answers_are_what_they_were(trained: Predictor, varied: Tensor):
    bare = dataclasses.replace(trained, promises=None, auto_promises=None)
    one, other = trained.predict(varied), bare.predict(varied)
    for name in ("label", "probabilities", "mc_mean", "mc_std", "mutual_information", "p_value", "flagged"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_parts_are_cut_and_joined(trained: Predictor, varied: Tensor):
    whole = trained.predict(varied)
    parts = [whole.rows(0, 7), whole.rows(7, len(varied))]
    again = Prediction.join(parts)
    np.testing.assert_array_equal(parts[0].accepted, whole.accepted[:7])
    np.testing.assert_array_equal(again.accepted, whole.accepted)
    np.testing.assert_array_equal(again.label_set, whole.label_set)
    assert [each.risk for each in again.decisions] == [each.risk for each in whole.decisions]


def test_promises_come_back_from_a_file(trained: Predictor, loaded: Predictor, varied: Tensor):
    assert loaded.promises.acceptances == trained.promises.acceptances
    assert loaded.auto_promises.acceptances == trained.auto_promises.acceptances
    for samples in (None, "auto"):
        before, after = trained.predict(varied, samples=samples), loaded.predict(varied, samples=samples)
        np.testing.assert_array_equal(before.accepted, after.accepted)
        np.testing.assert_array_equal(before.label_set, after.label_set)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda answers: answers["all"]["acceptances"][0].update(wrong=90), "do not carry that"),
        (lambda answers: answers["all"]["acceptances"][0].update(familiar=1e9), "accepts nothing flagged"),
        (lambda answers: answers["auto"]["acceptances"][0].update(rows=2**40, accepted=2**40), "150 calibration rows"),
        (lambda answers: answers["auto"]["label_sets"].update(by="class"), "3 quantiles by class"),
        (lambda answers: answers.pop("auto"), "answers.auto"),
        (lambda answers: answers["all"]["acceptances"].extend(19 * answers["all"]["acceptances"]), "at most 20 risks"),
    ],
)
def test_promises_that_do_not_hold_are_refused(
    edit: Callable[[Callable[[dict], object]], Path], change: Callable[[dict], object], complaint: str
):
    path = edit(lambda content: change(content[KEY]["answers"]))
    with pytest.raises(UnreadableCheckpoint, match=complaint):
        load(path, strategy="chain")


def test_a_flag_that_its_promises_do_not_belong_to_is_named_with_them(
    edit: Callable[[Callable[[dict], object]], Path],
):
    path = edit(lambda content: content[KEY]["auto"]["calibration"]["scores_N"].mul_(0))
    with pytest.raises(UnreadableCheckpoint, match="answers, calibration or auto: Expected a rule fitted to"):
        load(path, strategy="chain")


def test_a_file_without_promises_flags_and_decides_nothing(
    edit: Callable[[Callable[[dict], object]], Path], rows: Tensor
):
    path = edit(lambda content: content[KEY].update(answers=None))
    prediction = load(path, strategy="chain").predict(rows)
    assert prediction.flagged is not None
    assert prediction.decisions[0].reason == NOT_CALIBRATED


def test_what_is_promised_is_told_in_plain_data(trained: Predictor):
    card = json.loads(json.dumps(trained.describe()))
    kept, refused = card["decisions"]
    assert kept["promise"].startswith("at most 5.0% of the accepted answers to in-distribution inputs are wrong, with")
    assert (kept["risk"], kept["confidence"], kept["n"], kept["reason"]) == (0.05, 0.9, 150, None)
    assert (refused["promise"], refused["reason"]) == (None, "too_few_rows")
    assert card["label_set"]["coverage"] == 0.9
    assert "90.0% of in-distribution inputs contain the true class" in card["label_set"]["promise"]


def test_the_most_probable_member_comes_first():
    assert members(np.array([True, False, True, True]), np.array([0.2, 0.4, 0.3, 0.1], np.float32)) == [2, 0, 3]


def test_a_union_lacks_what_one_of_its_parts_lacks():
    one = LabelSetRows(np.array([[True, False]]), 0.9, None)
    other = LabelSetRows(np.array([[False, False]]), 0.95, None)
    none = LabelSetRows(None, None, NOT_CALIBRATED)
    assert unite([one, none]) is none
    union = unite([one, other])
    assert (union.contains.tolist(), union.coverage) == ([[True, False]], 0.95)
