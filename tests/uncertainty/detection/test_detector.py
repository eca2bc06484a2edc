"""The detector keeps its promise on a trained network, and says why it flags."""

from __future__ import annotations

import doctest
import math
from collections.abc import Iterator
from dataclasses import is_dataclass, replace

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from dubio.uncertainty import Calibration, Detector, Outputs
from dubio.uncertainty.detection import detector as detector_module
from dubio.uncertainty.detection.detector import DEFAULT_SCORES, SCORES
from dubio.uncertainty.detection.gaussians import ClassGaussians
from dubio.uncertainty.detection.scores import UNCERTAIN, UNFAMILIAR
from dubio.uncertainty.detection.serialization import dump_detector, load_detector
from dubio.uncertainty.errors import CalibrationSetTooSmall, NoFeatures, NotFitted, UncertaintyError

EVERY_SCORE = tuple(SCORES)


def _rows(outputs: Outputs, rows: Tensor | slice) -> Outputs:
    return outputs.take(rows)


def _fit(trained, names: tuple[str, ...] = DEFAULT_SCORES) -> Detector:
    return Detector.fit(trained.train, trained.train_labels_N, trained.select, names)


def _calibrated(trained, names: tuple[str, ...] = DEFAULT_SCORES) -> Detector:
    return _fit(trained, names).calibrate(_rows(trained.held_out, slice(0, 600)))


def test_the_network_has_learned_something(trained):
    # Without this, the promises below would be about noise.
    right = trained.held_out.deterministic.logits_BC.argmax(-1) == trained.held_out_labels_N
    assert right.double().mean() > 0.8


@pytest.mark.parametrize("names", [EVERY_SCORE, DEFAULT_SCORES, ("max_softmax",)], ids=["all", "default", "one"])
def test_the_promise_holds_in_95_percent_of_calibration_splits(trained, names):
    alpha, n, splits = 0.05, 400, 200
    scores_N = _fit(trained, names).score(trained.held_out)
    generator = torch.Generator().manual_seed(11)
    rates, marginal = [], []
    for _ in range(splits):
        order = torch.randperm(len(scores_N), generator=generator)
        calibration = Calibration.fit(scores_N[order[:n]], alpha, delta=0.05)
        p_values = calibration.p_value(scores_N[order[n:]])
        rates.append(float((p_values <= calibration.level).double().mean()))
        marginal.append(float((p_values <= alpha).double().mean()))
    # Another processor trains other last bits, and with them other splits.
    assert sum(np.array(rates) <= alpha) >= binom.ppf(1e-4, splits, 0.95)
    # The promise is not kept by flagging nothing; and without the confidence it would break in half of the splits.
    assert np.mean(rates) > alpha / 2
    assert 0.3 < np.mean(np.array(marginal) > alpha) < 0.7


def test_a_verdict_is_the_calibration_of_the_sum_of_ranks(trained):
    detector = _calibrated(trained, EVERY_SCORE)
    calibrating = _rows(trained.held_out, slice(0, 600))
    asked = _rows(trained.held_out, slice(600, 900))
    ranks_SB = torch.stack([detector.ranks[score.name](score.score(asked)) for score in detector.scores])
    verdict = detector.judge(asked)
    _, highest_N = detector.least_rounding.bounds(detector.scores, detector.ranks, calibrating)
    calibration = Calibration.fit(highest_N)
    assert torch.equal(detector.score(asked), ranks_SB.sum(0))
    assert torch.equal(verdict.p_value_B, calibration.p_value(ranks_SB.sum(0)))
    assert torch.equal(verdict.flagged_B, verdict.p_value_B <= calibration.level)
    assert 0 < int(verdict.flagged_B.sum()) < 30
    assert torch.equal(detector.rank(asked), ranks_SB)
    assert verdict.reasons == [SCORES[EVERY_SCORE[index]].reason for index in ranks_SB.argmax(0)]


def test_the_ranks_of_scores_that_ask_nobody_need_no_members(trained):
    detector = _fit(trained, EVERY_SCORE)
    ranks = detector.rank_without_members(trained.held_out.deterministic)
    rank = dict(zip(EVERY_SCORE, detector.rank(trained.held_out), strict=True))
    assert list(ranks) == [name for name in EVERY_SCORE if not SCORES[name].asks_members]
    assert all(torch.equal(rank_B, rank[name]) for name, rank_B in ranks.items())
    assert _fit(trained, ("mutual_information",)).rank_without_members(trained.held_out.deterministic) == {}


def test_a_score_that_is_the_same_for_all_select_rows_leaves_the_others_their_word(trained):
    # All select rows agree up to rounding that they are on the training data, and what is not counts as far out.
    noise_N = 1e-7 * torch.rand(len(trained.train.logits_BC), generator=torch.Generator().manual_seed(0))
    near = replace(trained.train, features_BF=torch.stack([torch.ones_like(noise_N), noise_N], dim=-1))
    select = _rows(trained.select, slice(0, 300))
    select = replace(select, deterministic=replace(select.deterministic, features_BF=near.features_BF[:300]))
    detector = Detector.fit(near, trained.train_labels_N, select, ("neighbours", "input_mahalanobis"))
    calibrating = replace(select, deterministic=replace(select.deterministic, features_BF=near.features_BF[300:600]))
    detector = detector.calibrate(calibrating)
    # What tells calibration rows apart by rounding alone adds nothing to what the other score says of them.
    ranks_SB = detector.rank(calibrating)
    assert float(ranks_SB[0].max()) < 0.2
    torch.testing.assert_close(detector.calibration.scores_N, ranks_SB[1].sort().values, rtol=0, atol=0.2)
    strange = replace(calibrating.deterministic, features_BF=near.features_BF[300:600] + torch.tensor([0, 1e-3]))
    assert bool(detector.judge(replace(calibrating, deterministic=strange)).flagged_B.all())


@pytest.mark.parametrize("name", EVERY_SCORE)
def test_each_score_can_be_chosen_alone(trained, name):
    detector = _calibrated(trained, (name,))
    flagged = detector.judge(_rows(trained.held_out, slice(600, None))).flagged_B
    assert 0.01 < float(flagged.double().mean()) < 0.07


@pytest.mark.parametrize("factor", [30.0, 1e3, 1e6])
def test_far_inputs_are_flagged_as_unfamiliar(trained, factor):
    # A ReLU network grows more confident far from the data: the distances must speak.
    x = factor * torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    verdict = _calibrated(trained).judge(trained.outputs(x))
    assert bool(verdict.flagged_B.all())
    assert set(verdict.reasons) == {UNFAMILIAR}
    assert verdict.p_value_B.tolist() == [1 / 601] * 50


def test_disagreement_is_flagged_as_uncertain(trained):
    asked = _rows(trained.held_out, slice(0, 2))
    split_KBC = torch.zeros_like(asked.probs_KBC)
    split_KBC[torch.arange(16), :, torch.arange(16) % 3] = 1.0
    verdict = _calibrated(trained).judge(replace(asked, probs_KBC=split_KBC))
    assert verdict.flagged_B.tolist() == [True, True]
    assert verdict.reasons == [UNCERTAIN, UNCERTAIN]


@pytest.mark.parametrize("names", [EVERY_SCORE, DEFAULT_SCORES, ("energy",)])
def test_outputs_that_is_nan_is_flagged_and_spoils_no_other(trained, names):
    detector = _calibrated(trained, names)
    asked = _rows(trained.held_out, slice(600, 603))
    clean = detector.judge(asked)

    def poison(tensor_B: Tensor) -> Tensor:
        there = torch.arange(3).view(3, *[1] * (tensor_B.ndim - 1)) == 1
        return tensor_B.masked_fill(there, math.nan)

    poisoned = Outputs(asked.deterministic.map(poison), poison(asked.probs_KBC.transpose(0, 1)).transpose(0, 1))
    verdict = detector.judge(poisoned)
    assert verdict.flagged_B[1]
    assert verdict.p_value_B[1] == 1 / 601
    torch.testing.assert_close(verdict.p_value_B[[0, 2]], clean.p_value_B[[0, 2]], rtol=0, atol=2 / 601)


def test_no_rows_get_no_verdicts(trained):
    verdict = _calibrated(trained, EVERY_SCORE).judge(_rows(trained.held_out, slice(0, 0)))
    assert verdict.p_value_B.shape == verdict.flagged_B.shape == (0,)
    assert verdict.reasons == []


def test_calibrating_does_not_change_the_detector_it_starts_from(trained):
    fitted = _fit(trained)
    calibrated = fitted.calibrate(_rows(trained.held_out, slice(0, 600)), alpha=0.1, delta=0.2)
    assert fitted.calibration is None
    assert (calibrated.scores, calibrated.ranks) == (fitted.scores, fitted.ranks)
    assert (calibrated.calibration.alpha, calibrated.calibration.delta) == (0.1, 0.2)


def test_moving_to_a_device_keeps_every_number(trained):
    detector = _calibrated(trained, EVERY_SCORE)
    asked = _rows(trained.held_out, slice(600, 700))
    moved = detector.to(torch.device("cpu"))
    assert torch.equal(moved.judge(asked).p_value_B, detector.judge(asked).p_value_B)
    assert _fit(trained).to(torch.device("cpu")).calibration is None


def test_moving_to_a_device_moves_what_the_distances_learned(trained):
    # No accelerator is needed to tell: the meta device holds shapes alone. Ranks look at their numbers when built.
    # So does fdbd, of whose numbers none may be 0.
    names = tuple(name for name in EVERY_SCORE if name != "fdbd")
    moved = Detector(_fit(trained, names).scores, {}).to(torch.device("meta"))

    def tensors(fitted: object) -> Iterator[Tensor]:
        if isinstance(fitted, Tensor):
            yield fitted
        elif isinstance(fitted, tuple):
            yield from (each for value in fitted for each in tensors(value))
        elif is_dataclass(fitted):
            yield from (each for value in vars(fitted).values() for each in tensors(value))

    found = list(tensors(moved.scores))
    banks, gaussians, density, residuals, react = 2, 7 * 4, 3, 2 + 3, 2
    assert len(found) == banks + gaussians + density + residuals + react
    assert {tensor.device.type for tensor in found} == {"meta"}


PAIR = ("input_mahalanobis", "max_softmax", "input_class_mahalanobis")


def test_the_inputs_gaussians_are_fitted_held_and_asked_once(trained, monkeypatch):
    detector = _fit(trained, PAIR)
    for each in (
        detector,
        load_detector(dump_detector(detector)),
        Detector(detector.scores, {}).to(torch.device("meta")),  # ranks look at their numbers when built
    ):
        assert [score.name for score in each.scores] == list(PAIR)
        assert each.scores[0].gaussians is each.scores[2].gaussians
    asked = _rows(trained.held_out, slice(0, 50))
    alone = [_fit(trained, (name,)).rank(asked)[0] for name in PAIR]
    times = []
    whitened = ClassGaussians._white
    monkeypatch.setattr(ClassGaussians, "_white", lambda *given: times.append(given) or whitened(*given))
    torch.testing.assert_close(detector.rank(asked), torch.stack(alone), rtol=1e-4, atol=1e-4)
    assert len(times) == 1


def test_a_detector_of_scores_that_share_nothing_is_dumped_whole(trained):
    separate = tuple(_fit(trained, (name,)).scores[0] for name in PAIR)
    detector = Detector.ranked(separate, trained.select)
    loaded = load_detector(dump_detector(detector))
    assert loaded.scores[0].gaussians is not loaded.scores[2].gaussians
    assert torch.equal(loaded.rank(trained.held_out), detector.rank(trained.held_out))


RANKS = {"scores_N": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)}
GAUSSIANS = {
    "mean_F": torch.zeros(3),
    "whitening_FG": torch.eye(3, 4),
    "precision_F": torch.ones(3),
    "class_means_CG": torch.zeros(2, 4),
}
LENT = {"name": "input_class_mahalanobis", "ranks": RANKS, "fitted": {"gaussians": GAUSSIANS}}
BORROWED = {"name": "input_mahalanobis", "ranks": RANKS, "fitted": None}


@pytest.mark.parametrize("parts", [[LENT, BORROWED], [BORROWED, LENT]], ids=["after", "before"])
def test_a_part_without_a_state_of_its_own_has_that_of_its_lender(parts):
    scores = {score.name: score for score in load_detector({"parts": parts}).scores}
    assert list(scores) == [part["name"] for part in parts]
    assert scores["input_mahalanobis"].gaussians is scores["input_class_mahalanobis"].gaussians


@pytest.mark.parametrize(
    "parts",
    [
        [BORROWED],
        [BORROWED, LENT | {"fitted": None}],
        [BORROWED, LENT, LENT],
        [BORROWED, LENT | {"name": "mahalanobis"}],
        [BORROWED, {"name": "input_class_mahalanobis"}],
        [BORROWED, {"name": None}],
        [LENT | {"fitted": None}, {"name": None}],
        [BORROWED | {"fitted": "input_class_mahalanobis"}, LENT],
    ],
)
def test_a_part_whose_lender_is_not_there_is_refused(parts):
    with pytest.raises(UncertaintyError, match=r"detector\.parts"):
        load_detector({"parts": parts})


def test_a_verdict_needs_a_calibration(trained):
    with pytest.raises(NotFitted, match=r"calibrate\(\)"):
        _fit(trained).judge(trained.select)


def test_too_few_calibration_rows_are_refused(trained):
    with pytest.raises(CalibrationSetTooSmall, match="at least 59"):
        _fit(trained).calibrate(_rows(trained.held_out, slice(0, 58)))


@pytest.mark.parametrize("names", [(), ("energy", "energy"), ("entropy",), ("energy", "")])
def test_wrong_score_names_are_refused(trained, names):
    with pytest.raises(UncertaintyError, match="`scores`"):
        _fit(trained, names)


@pytest.mark.parametrize("name", ["neighbours", "relative_mahalanobis"])
def test_feature_distances_need_features(trained, name):
    train = replace(trained.train, features_BF=None)
    with pytest.raises(NoFeatures):
        Detector.fit(train, trained.train_labels_N, trained.select, (name,))


def test_inputs_too_wide_for_a_covariance_are_refused(trained):
    train = replace(trained.train, inputs_BF=torch.zeros(3, 4097))
    with pytest.raises(UncertaintyError, match=r"at most 4096 numbers.*4097.*leave it out"):
        Detector.fit(train, trained.train_labels_N, trained.select, ("input_mahalanobis",))


def test_the_example_of_the_documentation_runs():
    result = doctest.testmod(detector_module)
    assert (result.attempted > 5, result.failed) == (True, 0)
