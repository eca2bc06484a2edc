from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from torch import nn

from dubio.models import NetworkSpec, Predictor
from dubio.models.checkpoint import state_dict as weights
from dubio.training import CalibrationSettings, Digits, calibrate
from dubio.training.errors import TrainingError
from dubio.training.score_choice import ScoreName
from dubio.uncertainty import AdaptiveSampling, Detector
from dubio.uncertainty.detection import conformal
from dubio.uncertainty.detection.serialization import dump_detector
from dubio.uncertainty.errors import CalibrationSetTooSmall

QUICK = CalibrationSettings(num_samples=8)


@pytest.fixture(scope="module")
def trained(digits: Digits) -> nn.Module:
    """A network that has learned something, so that logits, features and members mean something."""
    from dubio.models import MLP

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(in_features=64, widths=[64, 32], rates=[0.3, 0.3])
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
        for _ in range(15):
            for x, labels in digits.train_dataloader():
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x), labels).backward()
                optimizer.step()
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def predictor(trained: nn.Module, digits: Digits) -> Predictor:
    return calibrate(trained, spec(), digits, QUICK)


def spec() -> NetworkSpec:
    arguments = {"in_features": 64, "widths": [64, 32], "num_classes": 10, "rates": [0.3, 0.3]}
    return NetworkSpec(class_path="dubio.models.MLP", init_args=arguments)


def nll(predictor: Predictor, x: torch.Tensor, labels: torch.Tensor, factor: float) -> tuple[float, float]:
    """What temperature scaling minimises (half a wrong row more, and T = 1 expected), temperatures times a factor."""
    rows, wrong = np.arange(len(labels)), 0.5 / (len(labels) + 1)
    temperatures = predictor.temperature.deterministic * factor, predictor.temperature.mc * factor
    deterministic = (predictor.deterministic(x).logits_BC.double() / temperatures[0]).softmax(-1)
    members = (predictor.member_logits(x).double() / temperatures[1]).softmax(-1).mean(0)
    losses = []
    for probs, temperature in zip((deterministic, members), temperatures, strict=True):
        true = probs[rows, labels]
        told = (1 - wrong) * true.log() + wrong * (1 - true).log()
        losses.append(-told.mean().item() + (math.log(temperature) / 0.5) ** 2 / 2 / len(labels))
    return losses[0], losses[1]


def test_the_temperatures_are_the_best_ones_for_the_select_split(predictor: Predictor, digits: Digits):
    x, labels = digits.raw("select")
    best, colder, warmer = (nll(predictor, x, labels, factor) for factor in (1, 0.9, 1.1))
    assert predictor.temperature.deterministic != predictor.temperature.mc
    for here, below, above in zip(best, colder, warmer, strict=True):
        assert here < below
        assert here < above


def test_the_level_comes_from_the_calibration_split_alone(predictor: Predictor, digits: Digits):
    calibration = predictor.detector.calibration
    x, _ = digits.raw("calibration")
    scores = predictor.detector.score(predictor.outputs(x)).sort().values
    assert len(calibration.scores_N) == len(x)
    # Raised by what rounding may add, which matters most where scores are small and close together.
    raised = calibration.scores_N - scores
    assert 0 < float(raised.min()) <= float(raised.max()) < 0.05
    assert float((raised / scores)[-len(x) // 10 :].max()) < 1e-3
    assert (calibration.alpha, calibration.delta) == (0.05, 0.05)
    assert 0 < calibration.level < 0.05


def test_calibration_rows_are_flagged_exactly_as_often_as_the_level_says(predictor: Predictor, digits: Digits):
    x, _ = digits.raw("calibration")
    flagged = int(predictor.predict(x).flagged.sum())
    allowed = round(predictor.detector.calibration.level * (len(x) + 1))
    assert abs(flagged - allowed) <= 1  # one row may fall on the other side by rounding


def test_strangers_are_flagged_and_the_test_split_is_not(predictor: Predictor, digits: Digits):
    x, _ = digits.raw("test")
    noise = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 16
    assert predictor.predict(x).flagged.mean() < 0.08
    assert predictor.predict(noise).flagged.mean() > 0.8
    assert predictor.predict(x * 100).flagged.all()


def test_the_provenance_says_what_was_used(predictor: Predictor, trained: nn.Module, digits: Digits):
    x, labels = digits.raw("calibration")
    digest = hashlib.sha256()
    for tensor in (x, labels):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode() + tensor.numpy().tobytes())
    provenance = predictor.provenance
    assert provenance.data == digits.title
    assert provenance.data_sha256 == digest.hexdigest()
    assert provenance.weights_sha256 == weights.sha256(trained.state_dict())
    assert provenance.versions["torch"] == torch.__version__
    assert provenance.date.endswith("+00:00")


def test_calibrating_twice_gives_the_same_predictor(trained: nn.Module, predictor: Predictor, digits: Digits):
    before = weights.sha256(trained.state_dict())
    again = calibrate(trained, spec(), digits, QUICK)
    assert weights.sha256(trained.state_dict()) == before
    assert again.committee.fingerprint == predictor.committee.fingerprint
    # Each measures which strategy runs its members fastest, and strategies round differently.
    assert again.temperature.mc == pytest.approx(predictor.temperature.mc, rel=1e-3)
    scores_N = predictor.detector.calibration.scores_N
    torch.testing.assert_close(again.detector.calibration.scores_N, scores_N, rtol=0, atol=1e-4)


def test_the_committee_is_the_one_that_was_asked_for(trained: nn.Module, predictor: Predictor, digits: Digits):
    other = calibrate(trained, spec(), digits, CalibrationSettings(num_samples=6, seed=1, scores=("energy",)))
    assert (other.committee.num_samples, other.committee.seed) == (6, 1)
    assert other.committee.fingerprint != predictor.committee.fingerprint
    assert [score.name for score in other.detector.scores] == ["energy"]


def test_a_promise_that_the_split_cannot_carry_is_refused(trained: nn.Module, digits: Digits):
    with pytest.raises(CalibrationSetTooSmall, match=r"at least 2995 calibration rows .* 0\.001"):
        calibrate(trained, spec(), digits, CalibrationSettings(alpha=0.001, num_samples=4))


@pytest.mark.parametrize("scores", [(), ("energy", "energy")])
def test_no_score_or_one_twice_is_refused(scores: tuple[str, ...]):
    with pytest.raises(TrainingError, match=r"`calibration\.scores` .* none twice, but got"):
        CalibrationSettings(scores=scores)


def test_the_stopping_rule_is_calibrated_with_the_rest(trained: nn.Module, digits: Digits):
    predictor = calibrate(trained, spec(), digits, CalibrationSettings(num_samples=16, stages=(2, 4, 16, 32)))
    x, _ = digits.raw("calibration")
    prediction = predictor.predict(x, samples="auto")
    assert predictor.describe()["auto"] == {"stages": [2, 4, 16]}
    assert set(prediction.samples.tolist()) == {2, 4, 16}
    # As often as the level says: it was calibrated on these very rows, as a procedure of its own.
    allowed = round(predictor.stopping.calibration.level * (len(x) + 1))
    assert abs(int(prediction.flagged.sum()) - allowed) <= 1
    assert predictor.stopping.calibration.level == predictor.detector.calibration.level


def test_every_setting_reaches_what_is_fitted_and_each_split_what_it_is_for(trained: nn.Module, digits: Digits):
    """By hand, with the finished predictor, whose temperatures are applied."""
    names = ("mutual_information", "neighbours")
    settings = CalibrationSettings(alpha=0.1, delta=0.2, num_samples=12, scores=names, k=3, stages=(2, 5))
    predictor = calibrate(trained, spec(), digits, settings)
    promise = {"alpha": 0.1, "delta": 0.2}
    train, (select, _), (held_out, _) = (digits.raw(name) for name in ("train", "select", "calibration"))
    select_outputs, held_outputs = predictor.outputs(select), predictor.outputs(held_out)
    detector = Detector.fit(predictor.deterministic(train[0]), train[1], select_outputs, names=names, k=3)
    scores = detector.score(held_outputs)
    torch.testing.assert_close(predictor.detector.score(held_outputs), scores, rtol=0, atol=1e-3)
    stopping = AdaptiveSampling.fit(detector, select_outputs, len(held_out), **promise, stages=(2, 5))
    stopping = stopping.calibrate(detector, held_outputs, **promise)
    assert [stage.members for stage in predictor.stopping.stages] == [stage.members for stage in stopping.stages]
    for stage, due in zip(predictor.stopping.stages, stopping.stages, strict=True):
        assert (stage.below, stage.above, stage.clearance) == pytest.approx(
            (due.below, due.above, due.clearance), abs=1e-3
        )
    assert predictor.stopping.decided == pytest.approx(stopping.decided, abs=1e-4)
    for fitted in (predictor.detector.calibration, predictor.stopping.calibration):
        assert (fitted.alpha, fitted.delta, len(fitted.scores_N)) == (0.1, 0.2, len(held_out))
        assert fitted.level == conformal.level(len(held_out), 0.1, 0.2)


@pytest.mark.parametrize("stages", [(1, 8), (8, 8), (16, 8), (-1,)])
def test_stages_that_do_not_rise_are_refused(stages: tuple[int, ...]):
    with pytest.raises(TrainingError, match=r"`calibration\.stages`.*rising"):
        CalibrationSettings(stages=stages)


@pytest.mark.parametrize(("scores", "kept"), [(("neighbours",), 60), (("energy", "nnguide"), 60), (None, 0)])
def test_a_checkpoint_keeps_as_many_training_rows_as_it_may_and_says_so(
    trained: nn.Module, digits: Digits, scores: tuple[ScoreName, ...] | None, kept: int
):
    fewer = CalibrationSettings(num_samples=4, scores=scores, bank=60)
    predictor = calibrate(trained, spec(), digits, fewer, measure_seconds=0.1)
    assert predictor.describe()["training_rows_kept"] == kept
    parts = {part["name"]: part["fitted"] or {} for part in dump_detector(predictor.detector)["parts"]}
    assert [len(fitted["bank_NF"]) for fitted in parts.values() if "bank_NF" in fitted] == ([kept] if kept else [])


def test_fewer_rows_than_neighbours_are_refused():
    for scores in (("neighbours",), ("energy", "nnguide")):
        with pytest.raises(
            TrainingError, match=rf"at least `calibration\.k`, which is 50, but got 49;.* {scores[-1]} out"
        ):
            CalibrationSettings(bank=49, scores=scores)
    for scores in (None, ("energy",)):  # these keep none
        assert CalibrationSettings(bank=49, k=60, scores=scores).bank == 49
