from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor, nn

from dubio.models import MLP, Ensemble, InputSpec, Predictor, Temperature, Work
from dubio.models.checkpoint.state_dict import sha256
from dubio.models.ensemble import CALIBRATION_TOO_SMALL, NOT_FOR_ENSEMBLES, shares
from dubio.models.errors import InvalidInput, MismatchedCheckpoints
from dubio.models.prediction import NOT_CALIBRATED, NOT_CALIBRATED_FOR_SAMPLES, OUT_OF_RANGE
from dubio.uncertainty import AdaptiveSampling, Calibration, Detector
from dubio.uncertainty.detection.adaptive import recorded
from dubio.uncertainty.detection.conformal import JointCalibration, level
from dubio.uncertainty.detection.label_sets import LabelSets
from dubio.uncertainty.detection.promises import AnswerPromises

SHAPE = (1, 4, 4)
SIZES = (16, 12, 8)
PROMISE = {"alpha": 0.1, "delta": 0.1}


def blobs(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with one brighter column, which is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (rows,), generator=generator)
    x = torch.rand((rows, *SHAPE), generator=generator) * 8
    x[torch.arange(rows), 0, :, labels] += 5
    return x, labels


def sibling(trained: Predictor, seed: int, num_samples: int, calibration_rows: int = 300) -> Predictor:
    """Another network for the same task, trained from other weights and calibrated on the same rows."""
    x, labels = blobs(300, seed=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MLP(**trained.network_spec.init_args)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        for _ in range(25):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network((x - x.mean()) / x.std()), labels).backward()
            optimizer.step()
    network.eval().requires_grad_(False)
    built = Predictor.build(
        network, trained.network_spec, trained.input, trained.classes, num_samples=num_samples, seed=seed
    )
    temperature = Temperature(deterministic=1 + seed / 10, mc=1 - seed / 20)
    built = built.calibrated(temperature, None, None)
    select, calibration = built.outputs(blobs(100, 2)[0]), built.outputs(blobs(calibration_rows, 3)[0])
    detector = Detector.fit(built.deterministic(x), labels, select, k=10).calibrate(calibration, **PROMISE)
    stopping = AdaptiveSampling.fit(detector, select, calibration_rows, **PROMISE, stages=(4, 8))
    stopping = stopping.calibrate(detector, calibration, **PROMISE)
    provenance = trained.provenance.model_copy(update={"weights_sha256": sha256(network.state_dict())})
    return built.calibrated(temperature, detector, provenance, stopping)


@pytest.fixture(scope="module")
def predictors(trained: Predictor) -> list[Predictor]:
    return [sibling(trained, seed, size) for seed, size in enumerate(SIZES, start=1)]


@pytest.fixture(scope="module")
def ensemble(predictors: list[Predictor]) -> Ensemble:
    return Ensemble.build(predictors)


def member_probs(predictors: list[Predictor], x: Tensor, counts: list[int]) -> np.ndarray:
    return np.concatenate(
        [
            scipy.special.softmax(
                predictor.member_logits(x)[:count].double().numpy() / predictor.temperature.mc, axis=-1
            )
            for predictor, count in zip(predictors, counts, strict=True)
        ]
    )


@pytest.mark.parametrize(("asked", "counts"), [(None, list(SIZES)), (7, [3, 2, 2]), (2, [1, 1, 0]), (30, [11, 11, 8])])
def test_the_summary_is_over_all_members_of_all_checkpoints(
    ensemble: Ensemble, predictors: list[Predictor], rows: Tensor, asked: int | None, counts: list[int]
):
    prediction = ensemble.predict(rows, samples=asked)
    probs_KBC = member_probs(predictors, rows, counts)
    mean_BC = probs_KBC.mean(0)
    assert prediction.samples == len(probs_KBC) == (asked or sum(SIZES))
    np.testing.assert_allclose(prediction.mc_mean, mean_BC, atol=1e-6)
    np.testing.assert_allclose(prediction.mc_std, probs_KBC.std(0), atol=1e-5)
    np.testing.assert_array_equal(prediction.mc_label, mean_BC.argmax(-1))
    total_B = scipy.stats.entropy(mean_BC, axis=-1)
    expected_B = scipy.stats.entropy(probs_KBC, axis=-1).mean(0)
    np.testing.assert_allclose(prediction.predictive_entropy, total_B, atol=1e-5)
    np.testing.assert_allclose(prediction.expected_entropy, expected_B, atol=1e-5)
    np.testing.assert_allclose(prediction.mutual_information, total_B - expected_B, atol=1e-5)


def test_the_deterministic_prediction_is_the_mean_of_the_checkpoints_probabilities(
    ensemble: Ensemble, predictors: list[Predictor], rows: Tensor
):
    prediction = ensemble.predict(rows, work=Work.DETERMINISTIC)
    mean_BC = np.mean([predictor.predict(rows).probabilities for predictor in predictors], axis=0)
    np.testing.assert_allclose(prediction.probabilities, mean_BC, atol=1e-6)
    np.testing.assert_array_equal(prediction.label, prediction.probabilities.argmax(-1))
    assert (prediction.samples, prediction.monte_carlo, prediction.flags) == (0, None, None)
    np.testing.assert_array_equal(prediction.probabilities, ensemble.predict(rows).probabilities)


def test_members_disagree_more_than_those_of_one_checkpoint(ensemble: Ensemble, predictors: list[Predictor]):
    noise = torch.rand((200, *SHAPE), generator=torch.Generator().manual_seed(9)) * 16
    alone = np.mean([predictor.predict(noise).mutual_information.mean() for predictor in predictors])
    assert ensemble.predict(noise).mutual_information.mean() > alone


def test_a_flag_is_any_checkpoints_flag_at_its_share_of_the_promise(ensemble: Ensemble, predictors: list[Predictor]):
    noise = torch.rand((50, *SHAPE), generator=torch.Generator().manual_seed(9)) * 20
    x = torch.cat([blobs(300, seed=7)[0], blobs(50, seed=8)[0] * 1.05, noise])
    prediction = ensemble.predict(x)
    own_level = level(300, 0.1 / 3, 0.1 / 3)
    p_MB = np.stack([predictor.predict(x).p_value for predictor in predictors])
    np.testing.assert_array_equal(prediction.flagged, (p_MB <= own_level).any(0))
    np.testing.assert_allclose(prediction.p_value, np.minimum(1, 3 * p_MB.min(0)), rtol=1e-12)
    assert prediction.level == pytest.approx(3 * own_level)
    np.testing.assert_array_equal(prediction.flagged, prediction.p_value <= prediction.level)
    assert 0 < prediction.flagged.mean() < 1
    loudest_B = p_MB.argmin(0)
    for row, reason in enumerate(prediction.reasons):
        # The loudest checkpoint is at or below its own, larger level as well, so it has a reason to give.
        expected = predictors[loudest_B[row]].predict(x[row : row + 1]).reasons[0] if prediction.flagged[row] else None
        assert reason == expected
    assert OUT_OF_RANGE in prediction.reasons


def test_the_promise_holds_over_draws_of_the_calibration_rows(predictors: list[Predictor]):
    """The checkpoints' own scores on 6,000 fresh rows, split again and again: real networks, real dependence."""
    pool = blobs(6000, seed=11)[0]
    scores = [predictor.detector.score(predictor.outputs(pool)) for predictor in predictors]
    alpha, delta, n, trials = 0.1, 0.1, 400, 120
    generator = torch.Generator().manual_seed(0)
    broken = 0
    for _ in range(trials):
        order = torch.randperm(len(pool), generator=generator)
        refitted = []
        for predictor, score in zip(predictors, scores, strict=True):
            calibration = Calibration.fit(score[order[:n]], alpha, delta)
            detector = dataclasses.replace(predictor.detector, calibration=calibration)
            refitted.append(dataclasses.replace(predictor, detector=detector))
        joint = Ensemble.build(refitted).joint
        p_MB = torch.stack(
            [p.detector.calibration.p_value(score[order[n:]]) for p, score in zip(refitted, scores, strict=True)]
        )
        broken += float((joint.p_value(p_MB) <= joint.level).double().mean()) > alpha
    assert broken / trials <= delta


def promised(predictor: Predictor, coverage: float) -> Predictor:
    """The same predictor with label sets of its own."""
    x, labels = blobs(300, 3)
    means = [predictor.predict(x, samples=samples).mc_mean for samples in (None, "auto")]
    rules = [LabelSets("lac", "all", coverage).calibrate(torch.from_numpy(mean), labels) for mean in means]
    promises, auto = (AnswerPromises((), rule) for rule in rules)
    return dataclasses.replace(predictor, promises=promises, auto_promises=auto)


@pytest.mark.parametrize("samples", [None, "auto"])
def test_a_label_set_is_the_union_of_the_checkpoints_sets(
    predictors: list[Predictor], samples: str | None, rows: Tensor
):
    each = [promised(predictor, coverage) for predictor, coverage in zip(predictors, (0.9, 0.8, 0.7), strict=True)]
    prediction = Ensemble.build(each).predict(rows, samples=samples)
    union = np.any([predictor.predict(rows, samples=samples).label_set for predictor in each], axis=0)
    np.testing.assert_array_equal(prediction.label_set, union)
    assert (prediction.label_sets.coverage, prediction.label_sets.reason) == (0.9, None)
    described = Ensemble.build(each).describe()
    assert described["label_set"]["coverage"] == 0.9
    assert described["decisions"] == []


def test_no_answer_of_an_ensemble_is_accepted_or_refused(ensemble: Ensemble, trained: Predictor, rows: Tensor):
    prediction = ensemble.predict(rows)
    assert prediction.flagged is not None
    assert prediction.accepted is None
    assert [each.reason for each in prediction.decisions] == [NOT_FOR_ENSEMBLES]
    # These checkpoints have no label sets, so their ensemble has none.
    assert (prediction.label_set, prediction.label_sets.reason) == (None, NOT_CALIBRATED)
    assert ensemble.describe()["label_set"] is None
    assert trained.describe()["decisions"]


def test_fewer_members_have_no_flag(ensemble: Ensemble, rows: Tensor):
    prediction = ensemble.predict(rows, samples=sum(SIZES) - 1)
    assert prediction.flagged is prediction.p_value is prediction.level is None
    assert prediction.reasons == [NOT_CALIBRATED_FOR_SAMPLES] * len(rows)


def test_too_few_calibration_rows_for_the_share_mean_no_flag_and_a_reason(trained: Predictor, rows: Tensor):
    # 59 rows carry 10% with 90% confidence shared by two; 40 carry it for each alone.
    pair = Ensemble.build([sibling(trained, seed, 4, calibration_rows=40) for seed in (1, 2)])
    prediction = pair.predict(rows)
    assert prediction.flagged is prediction.p_value is prediction.level is None
    assert prediction.reasons == [CALIBRATION_TOO_SMALL] * len(rows)
    assert pair.describe()["calibration"] is None
    assert "shared by 2 checkpoints: Expected at least 59 calibration rows" in pair.describe()["not_calibrated"]


def test_one_that_is_not_calibrated_means_no_flag(predictors: list[Predictor], rows: Tensor):
    bare = dataclasses.replace(predictors[1], detector=None, provenance=None)
    prediction = Ensemble.build([predictors[0], bare]).predict(rows)
    assert prediction.flagged is None
    assert prediction.reasons == [NOT_CALIBRATED] * len(rows)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda p: dataclasses.replace(p, classes=("a", "b", "c")),
            r"same classes in the same order.*checkpoint 2 has",
        ),
        (lambda p: dataclasses.replace(p, classes=p.classes[::-1]), "same order"),
        (lambda p: dataclasses.replace(p, input=p.input.model_copy(update={"mean": (0.0,)})), "`input.mean` is"),
        (lambda p: dataclasses.replace(p, input=p.input.model_copy(update={"high": 99.0})), "`input.high` is"),
        (
            lambda p: dataclasses.replace(
                p, input=InputSpec(kind="numbers", shape=(2,), mean=(0, 0), std=(1, 1), low=0, high=1)
            ),
            "`input.kind` is 'image' in checkpoint 1 and 'numbers' in checkpoint 2",
        ),
    ],
)
def test_checkpoints_of_different_tasks_are_refused(
    predictors: list[Predictor], change: Callable[[Predictor], Predictor], complaint: str
):
    with pytest.raises(MismatchedCheckpoints, match=complaint):
        Ensemble.build([predictors[0], change(predictors[1])])


def test_one_alone_and_one_twice_are_refused(predictors: list[Predictor]):
    with pytest.raises(MismatchedCheckpoints, match="at least two checkpoints"):
        Ensemble.build(predictors[:1])
    with pytest.raises(MismatchedCheckpoints, match="checkpoint 3 is the same as checkpoint 1"):
        Ensemble.build([predictors[0], predictors[1], predictors[0]])


@pytest.mark.parametrize("samples", [0, 1, sum(SIZES) + 1, 2.0, True])
def test_absurd_samples_are_refused(ensemble: Ensemble, rows: Tensor, samples: object):
    with pytest.raises(InvalidInput, match=r"\[2, 36\]"):
        ensemble.predict(rows, samples=samples)


def test_bad_rows_are_refused(ensemble: Ensemble):
    with pytest.raises(InvalidInput, match="shape"):
        ensemble.predict(torch.zeros(1, 3))
    with pytest.raises(InvalidInput, match="finite"):
        ensemble.predict(torch.full((1, *SHAPE), torch.nan))
    with pytest.raises(InvalidInput, match="overflow"):
        ensemble.predict(torch.full((1, *SHAPE), -3e38))


def test_the_description_is_plain_and_complete(ensemble: Ensemble, predictors: list[Predictor], trained: Predictor):
    card = json.loads(json.dumps(ensemble.describe()))
    assert set(card) >= set(trained.describe())
    assert card["committee"]["num_samples"] == ensemble.committee.num_samples == sum(SIZES)
    assert card["committee"]["seed"] is None
    assert len(card["committee"]["sites"]) == 6
    assert card["checkpoints"] == json.loads(json.dumps([predictor.describe() for predictor in predictors]))
    assert "10.0% of in-distribution inputs are flagged by any of 3 checkpoints" in card["calibration"]["promise"]
    assert card["calibration"]["level"] == pytest.approx(3 * level(300, 0.1 / 3, 0.1 / 3))
    assert card["provenance"] == {"data": "blobs"}


@pytest.mark.parametrize("sizes", [(4,), (3, 3), (5, 1, 3), (64, 64, 2), (1, 100)])
def test_shares_are_those_of_members_taken_in_turn(sizes: tuple[int, ...]):
    turns = sorted((member, index) for index, size in enumerate(sizes) for member in range(size))
    for asked in range(sum(sizes) + 1):
        counted = [sum(index == wanted for _, index in turns[:asked]) for wanted in range(len(sizes))]
        assert shares(sizes, asked) == counted


def test_each_checkpoint_asks_as_many_members_as_it_takes_it(ensemble: Ensemble, predictors: list[Predictor]):
    x = torch.cat([blobs(40, 4)[0], 16 - blobs(10, 5)[0]])
    prediction = ensemble.predict(x, samples="auto")
    parts = [predictor.predict(x, samples="auto") for predictor in predictors]
    assert np.array_equal(prediction.samples, sum(part.samples for part in parts))
    assert prediction.samples.min() < sum(SIZES)
    weights = np.array(SIZES) / sum(SIZES)
    mean = sum(weight * part.mc_mean for weight, part in zip(weights, parts, strict=True))
    np.testing.assert_allclose(prediction.mc_mean, mean, atol=1e-6)
    square = sum(weight * (part.mc_std**2 + part.mc_mean**2) for weight, part in zip(weights, parts, strict=True))
    np.testing.assert_allclose(prediction.mc_std, np.sqrt(np.maximum(square - mean**2, 0)), atol=1e-3)
    np.testing.assert_allclose(prediction.predictive_entropy, scipy.stats.entropy(mean, axis=-1), atol=1e-5)
    p_values = np.stack([part.p_value for part in parts])
    np.testing.assert_allclose(prediction.p_value, np.minimum(1, 3 * p_values.min(0)), atol=1e-12)
    assert np.array_equal(prediction.flagged, p_values.min(0) <= level(300, 0.1 / 3, 0.1 / 3))
    assert 0 < prediction.flagged.sum() < len(x)


def test_checkpoints_whose_stages_are_all_members_answer_as_all_members_do(predictors: list[Predictor], rows: Tensor):
    calibration = blobs(300, 3)[0]
    whole = []
    for predictor in predictors:
        stopping = AdaptiveSampling((), predictor.committee.num_samples, 1.0)
        stopping = stopping.calibrate(predictor.detector, predictor.outputs(calibration), **PROMISE)
        whole.append(dataclasses.replace(predictor, stopping=stopping))
    early, full = (Ensemble.build(whole).predict(rows, samples=samples) for samples in ("auto", None))
    assert early.samples.tolist() == [sum(SIZES)] * len(rows)
    for name in ("mc_mean", "mc_std", "predictive_entropy", "expected_entropy", "mutual_information"):
        np.testing.assert_allclose(getattr(early, name), getattr(full, name), atol=1e-5)
    assert np.array_equal(early.flagged, full.flagged)
    np.testing.assert_allclose(early.p_value, full.p_value, atol=3.1 / 301)


def test_the_promise_holds_when_each_asks_as_many_as_it_takes(predictors: list[Predictor]):
    # The scores do not depend on the calibration rows, so one computation serves every draw of them.
    fresh = blobs(4000, 6)[0]
    scores_MN = []
    for predictor in predictors:
        outputs = predictor.outputs(fresh)
        stopped = predictor.stopping.run(predictor.detector, outputs.deterministic, recorded(outputs.probs_KBC))
        scores_MN.append(stopped.ranks_SB.sum(0))
    generator = torch.Generator().manual_seed(0)
    kept = []
    for _ in range(200):
        order = torch.randperm(4000, generator=generator)
        calibrations = [Calibration.fit(scores_N[order[:300]], **PROMISE) for scores_N in scores_MN]
        joint = JointCalibration.fit(calibrations)
        p_values_MB = torch.stack(
            [
                calibration.p_value(scores_N[order[300:]])
                for calibration, scores_N in zip(calibrations, scores_MN, strict=True)
            ]
        )
        kept.append(float((joint.p_value(p_values_MB) <= joint.level).double().mean()) <= 0.1)
    assert np.mean(kept) >= 0.9


def test_one_checkpoint_without_a_stopping_rule_refuses_for_all(predictors: list[Predictor], rows: Tensor):
    old = dataclasses.replace(predictors[1], stopping=None)
    ensemble = Ensemble.build([predictors[0], old])
    with pytest.raises(InvalidInput, match="dubio-train calibrate"):
        ensemble.predict(rows, samples="auto")
    assert ensemble.describe()["auto"] is None
    assert Ensemble.build(predictors).describe()["auto"] == {"stages": [[4, 8, 16], [4, 8, 12], [4, 8]]}
