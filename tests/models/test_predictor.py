from __future__ import annotations

import copy
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor

from dubio.models import MLP, InputSpec, NetworkSpec, Prediction, Predictor, ResNet, Work
from dubio.models import predictor as predictor_module
from dubio.models.budget import Budget
from dubio.models.errors import InvalidInput
from dubio.models.inputs import encoding
from dubio.uncertainty import Calibration
from dubio.uncertainty.detection.adaptive import recorded
from dubio.uncertainty.errors import NoDropoutFound

ARRAYS = (
    "label",
    "probabilities",
    "mc_label",
    "mc_mean",
    "mc_std",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "p_value",
    "flagged",
)


def _same(a: Prediction, b: Prediction) -> bool:
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ARRAYS)
    return arrays and (a.samples, a.level, a.reasons) == (b.samples, b.level, b.reasons)


def _plain(predictor: Predictor, raw: Tensor) -> Tensor:
    """What the network alone answers: no committee, no tap, no tracing."""
    network = MLP(**predictor.network_spec.init_args)
    network.load_state_dict(predictor.network.state_dict())
    spec = predictor.input
    x = (raw - torch.tensor(spec.mean)) / torch.tensor(spec.std)
    with torch.no_grad():
        return network.eval()(x)


@pytest.fixture(scope="module")
def uncalibrated(trained: Predictor) -> Predictor:
    return dataclasses.replace(trained, detector=None, provenance=None)


def test_the_predictor_has_learned_its_task(trained: Predictor, rows: Tensor):
    labels = rows.sum(dim=(1, 2)).argmax(-1)
    prediction = trained.predict(rows)
    assert (prediction.label == labels.numpy()).mean() >= 0.9
    assert (prediction.mc_label == prediction.mc_mean.argmax(-1)).all()
    assert (prediction.mc_std > 0).any(axis=1).all()


@pytest.mark.parametrize("batch", [1, 2, 3, 10])
def test_deterministic_logits_are_the_networks_to_the_last_bit(trained: Predictor, rows: Tensor, batch: int):
    raw = rows[:batch]
    expected = _plain(trained, raw)
    trained.predict(raw)
    assert torch.equal(trained.deterministic(raw).logits_BC, expected)
    probabilities = (expected / trained.temperature.deterministic).softmax(-1).numpy()
    assert np.array_equal(trained.predict(raw).probabilities, probabilities)


def test_the_summary_is_that_of_the_members(trained: Predictor, rows: Tensor):
    logits_KBC = trained.member_logits(rows).double().numpy()
    probs_KBC = scipy.special.softmax(logits_KBC / trained.temperature.mc, axis=-1)
    prediction = trained.predict(rows)
    mean_BC = probs_KBC.mean(0)
    np.testing.assert_allclose(prediction.mc_mean, mean_BC, atol=1e-6)
    np.testing.assert_allclose(prediction.mc_std, probs_KBC.std(0), atol=1e-5)
    total_B = scipy.stats.entropy(mean_BC, axis=-1)
    expected_B = scipy.stats.entropy(probs_KBC, axis=-1).mean(0)
    np.testing.assert_allclose(prediction.predictive_entropy, total_B, atol=1e-5)
    np.testing.assert_allclose(prediction.expected_entropy, expected_B, atol=1e-5)
    np.testing.assert_allclose(prediction.mutual_information, total_B - expected_B, atol=1e-5)


def test_members_are_the_network_with_units_dropped(trained: Predictor, rows: Tensor):
    # Each member's first hidden layer is either 0 or 1/(1-p) times the deterministic one.
    committee = trained.committee
    assert [(site.kind, site.p, site.shape) for site in committee.sites] == [
        ("dropout", 0.5, (24,)),
        ("dropout", 0.3, (20,)),
    ]
    logits_KBC = trained.member_logits(rows)
    assert logits_KBC.shape == (16, len(rows), 3)
    assert len({tuple(member.flatten().tolist()) for member in logits_KBC}) == 16


def test_p_values_are_conformal_and_flags_follow_the_level(trained: Predictor, rows: Tensor):
    mixed = torch.cat([rows, rows * 0.2])
    prediction = trained.predict(mixed)
    calibration = trained.detector.calibration
    scores_B = trained.detector.score(trained.outputs(mixed)).numpy()
    at_least_B = (calibration.scores_N.numpy()[:, None] >= scores_B).sum(0)
    np.testing.assert_allclose(prediction.p_value, (1 + at_least_B) / (len(calibration.scores_N) + 1))
    assert prediction.level == calibration.level
    assert np.array_equal(prediction.flagged, prediction.p_value <= calibration.level)
    assert prediction.flagged.any()
    assert not prediction.flagged.all()
    assert [reason is not None for reason in prediction.reasons] == prediction.flagged.tolist()


def test_inputs_unlike_the_training_data_are_flagged_as_unfamiliar(trained: Predictor):
    checkerboard = torch.full((1, 1, 4, 4), 1.0)
    checkerboard[..., ::2, ::2] = checkerboard[..., 1::2, 1::2] = 15.0
    assert trained.predict(checkerboard).reasons == ["unfamiliar"]


def test_values_beyond_the_training_range_are_flagged_as_out_of_range(trained: Predictor, rows: Tensor):
    assert set(trained.predict(rows * 10).reasons) == {"out_of_range"}
    assert set(trained.predict(-rows * 10).reasons) == {"out_of_range"}


def test_inputs_on_which_members_disagree_are_flagged_as_uncertain(trained: Predictor, rows: Tensor):
    (uncertainty,) = [score for score in trained.detector.scores if score.name == "mutual_information"]
    detector = dataclasses.replace(trained.detector, scores=(uncertainty,), calibration=None)
    scores_N = detector.score(trained.outputs(rows))
    calibration = Calibration.fit(torch.linspace(-5, float(scores_N.median()), 50), alpha=0.1, delta=0.1)
    predictor = dataclasses.replace(trained, detector=dataclasses.replace(detector, calibration=calibration))
    prediction = predictor.predict(rows)
    assert prediction.flagged.any()
    assert {reason for reason in prediction.reasons if reason} == {"uncertain"}


def test_a_small_excess_over_the_range_alone_is_no_flag(trained: Predictor, rows: Tensor):
    # The promise bounds false alarms: only the calibrated score may flag, the range merely explains.
    prediction = trained.predict(rows)
    familiar = rows[~torch.from_numpy(prediction.flagged)][:1].clone()
    narrow = dataclasses.replace(trained, input=trained.input.model_copy(update={"high": float(familiar.max()) - 0.01}))
    assert narrow.predict(familiar).reasons == [None]


def test_fewer_samples_are_the_first_members_and_carry_no_flag(trained: Predictor, rows: Tensor):
    prediction = trained.predict(rows, samples=5)
    probs_KBC = (trained.member_logits(rows)[:5] / trained.temperature.mc).softmax(-1)
    np.testing.assert_allclose(prediction.mc_mean, probs_KBC.mean(0).numpy(), atol=1e-6)
    assert prediction.samples == 5
    assert prediction.p_value is prediction.flagged is prediction.level is None
    assert set(prediction.reasons) == {"not_calibrated_for_these_samples"}
    assert np.array_equal(prediction.probabilities, trained.predict(rows).probabilities)


def test_asking_for_all_samples_is_the_default(trained: Predictor, rows: Tensor):
    assert _same(trained.predict(rows, samples=16), trained.predict(rows))


@pytest.mark.parametrize("samples", [-1, 0, 1, 17, 10**400, 2.5, "4", True, np.inf])
def test_samples_out_of_range_are_refused(trained: Predictor, rows: Tensor, samples: Any):
    with pytest.raises(InvalidInput, match=r"`samples` to be an integer in \[2, 16\]"):
        trained.predict(rows, samples=samples)


@pytest.fixture(scope="module")
def mixed(rows: Tensor) -> Tensor:
    """Inputs like the training data, and others."""
    return torch.cat([rows, rows * 3, rows.roll(1, -1) + rows, 16 - rows])


def test_as_many_members_as_it_takes_are_the_first_ones(trained: Predictor, mixed: Tensor):
    prediction = trained.predict(mixed, samples="auto")
    assert set(prediction.samples.tolist()) <= {4, 8, 16}
    assert prediction.samples.min() == 4
    for samples in (4, 8, 16):
        rows = prediction.samples == samples
        expected = trained.predict(mixed, samples=samples)
        for name in ("mc_mean", "mc_std", "predictive_entropy", "expected_entropy", "mutual_information"):
            np.testing.assert_allclose(getattr(prediction, name)[rows], getattr(expected, name)[rows], atol=1e-5)


def test_the_flag_of_as_many_members_as_it_takes_is_that_of_their_own_calibration(trained: Predictor, mixed: Tensor):
    prediction = trained.predict(mixed, samples="auto")
    outputs = trained.outputs(mixed)
    stopped = trained.stopping.run(trained.detector, outputs.deterministic, recorded(outputs.probs_KBC))
    verdict = trained.stopping.judge(trained.detector, stopped)
    assert np.array_equal(prediction.samples, stopped.samples_B.numpy())
    np.testing.assert_allclose(prediction.p_value, verdict.p_value_B.numpy(), atol=1 / 151)
    assert np.array_equal(prediction.flagged, prediction.p_value <= verdict.level)
    assert prediction.level == verdict.level == trained.detector.calibration.level
    assert 0 < prediction.flagged.sum() < len(mixed)
    for flag, reason in zip(prediction.flagged, prediction.reasons, strict=True):
        assert (reason is not None) == flag


def test_as_many_members_as_it_takes_are_the_same_alone_and_in_company(trained: Predictor, mixed: Tensor):
    together = trained.predict(mixed, samples="auto")
    for row in range(len(mixed)):
        alone = trained.predict(mixed[row : row + 1], samples="auto")
        assert alone.samples.tolist() == [together.samples[row]]
        assert alone.flagged.tolist() == [together.flagged[row]]
        np.testing.assert_allclose(alone.mc_mean[0], together.mc_mean[row], atol=1e-5)


def test_no_more_is_computed_than_is_asked_for_with_as_many_members_as_it_takes(trained: Predictor, rows: Tensor):
    deterministic = trained.predict(rows, samples="auto", work=Work.DETERMINISTIC)
    assert (deterministic.samples, deterministic.monte_carlo) == (0, None)
    without = trained.predict(rows, samples="auto", work=Work.MC)
    assert without.flags is None
    assert np.array_equal(without.samples, trained.predict(rows, samples="auto").samples)


def test_a_model_without_a_stopping_rule_refuses_to_guess(trained: Predictor, uncalibrated: Predictor, rows: Tensor):
    for predictor in (dataclasses.replace(trained, stopping=None), uncalibrated):
        with pytest.raises(InvalidInput, match=r"\"auto\".*dubio-train calibrate"):
            predictor.predict(rows, samples="auto")


def test_without_calibration_there_is_no_flag_but_a_reason(uncalibrated: Predictor, trained: Predictor, rows: Tensor):
    prediction = uncalibrated.predict(rows)
    assert prediction.p_value is prediction.flagged is prediction.level is None
    assert prediction.reasons == ["not_calibrated"] * len(rows)
    assert np.array_equal(prediction.mc_mean, trained.predict(rows).mc_mean)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((0, 1, 4, 4)),
        np.zeros((1, 4, 4)),
        np.zeros((2, 16)),
        [[[[np.nan] * 4] * 4]],
        [[[[np.inf] * 4] * 4]],
        [[[["a"] * 4] * 4]],
        [[[[1.0] * 4] * 3 + [[1.0] * 5]]],
        [],
        None,
    ],
)
@pytest.mark.parametrize("method", ["predict", "outputs", "deterministic", "member_logits"])
def test_inputs_that_the_model_does_not_take_are_refused(trained: Predictor, x: Any, method: str):
    with pytest.raises(InvalidInput, match="Expected"):
        getattr(trained, method)(x)


def test_values_that_overflow_the_network_are_refused_by_row(trained: Predictor, rows: Tensor):
    x = rows.clone()
    x[4] = -3e38
    with pytest.raises(InvalidInput, match=r"input 4 .*overflow .*magnitude 3e\+38; training values lay in"):
        trained.predict(x)


@pytest.mark.parametrize("factor", [1e9, 1e18, 1e30, 1e36])
def test_large_values_that_do_not_overflow_are_answered_with_finite_numbers(
    trained: Predictor, rows: Tensor, factor: float
):
    prediction = trained.predict(rows * factor)
    assert all(np.isfinite(getattr(prediction, name)).all() for name in ARRAYS)
    assert prediction.flagged.all()


def test_the_same_input_gets_the_same_answer_whoever_shares_its_batch(trained: Predictor, rows: Tensor):
    together = trained.predict(rows)
    for index in range(len(rows)):
        alone = trained.predict(rows[index : index + 1])
        np.testing.assert_allclose(alone.mc_mean[0], together.mc_mean[index], atol=1e-5)
        np.testing.assert_allclose(alone.mc_std[0], together.mc_std[index], atol=1e-5)


def test_a_view_with_its_axes_turned_gets_the_answer_of_its_copy(trained: Predictor, rows: Tensor):
    turned = np.ascontiguousarray(rows.numpy().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    columns = np.asfortranarray(rows.numpy())
    for batch in (1, 3, 10):
        expected = trained.predict(rows[:batch])
        for view in (turned[:batch], columns[:batch], torch.from_numpy(columns)[:batch]):
            assert _same(trained.predict(view), expected)


def test_numpy_lists_and_tensors_get_the_same_answer(trained: Predictor, rows: Tensor):
    expected = trained.predict(rows)
    assert _same(trained.predict(rows.numpy()), expected)
    assert _same(trained.predict(rows.tolist()), expected)
    assert _same(trained.predict(rows.double()), expected)


def test_predicting_writes_nothing_and_draws_nothing(trained: Predictor, rows: Tensor):
    state = copy.deepcopy(trained.network.state_dict())
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    raw = rows.clone()
    trained.predict(raw)
    trained.predict(raw, samples=3)
    assert torch.equal(raw, rows)
    assert all(torch.equal(tensor, state[name]) for name, tensor in trained.network.state_dict().items())
    assert not any(module.training for module in trained.network.modules())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_eight_threads_get_what_one_gets(trained: Predictor, rows: Tensor):
    batches = [rows[: 1 + index % 5] for index in range(8)]
    expected = [trained.predict(batch) for batch in batches]
    fewer = [trained.predict(batch, samples=3) for batch in batches]
    logits = [_plain(trained, batch) for batch in batches]

    def work(index: int) -> bool:
        for _ in range(15):
            fine = _same(trained.predict(batches[index]), expected[index])
            fine &= np.array_equal(trained.predict(batches[index], samples=3).mc_std, fewer[index].mc_std)
            fine &= torch.equal(trained.deterministic(batches[index]).logits_BC, logits[index])
            if not fine:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_a_predictor_is_frozen(trained: Predictor):
    with pytest.raises(dataclasses.FrozenInstanceError):
        trained.detector = None


def test_the_description_is_plain_data(trained: Predictor, uncalibrated: Predictor):
    description = trained.describe()
    assert json.loads(json.dumps(description, allow_nan=False)) == description
    assert description["classes"] == ["left", "middle", "right"]
    assert description["input"]["shape"] == [1, 4, 4]
    assert description["committee"]["num_samples"] == 16
    assert description["committee"]["sites"][0] == {"name": "body.3", "kind": "dropout", "p": 0.5, "shape": [24]}
    assert description["calibration"]["n"] == 150
    assert description["calibration"]["promise"].startswith("at most 10.0% of in-distribution inputs are flagged")
    assert description["training_rows_kept"] > 0
    assert description["provenance"]["data"] == "blobs"
    assert (uncalibrated.describe()["calibration"], uncalibrated.describe()["provenance"]) == (None, None)


def test_one_class_name_a_logit_is_due(trained: Predictor):
    with pytest.raises(InvalidInput, match="3 logits and there are 2 classes"):
        Predictor.build(trained.network, trained.network_spec, trained.input, ("left", "right"), num_samples=4)


def test_a_network_without_dropout_is_refused():
    arguments = {"in_features": 2, "widths": [3], "num_classes": 2, "rates": [0.0]}
    spec = NetworkSpec(class_path="dubio.models.MLP", init_args=arguments)
    numbers = InputSpec(kind="numbers", shape=(2,), mean=(0.0, 0.0), std=(1.0, 1.0), low=0.0, high=1.0)
    with pytest.raises(NoDropoutFound):
        Predictor.build(MLP(**arguments).eval(), spec, numbers, ("a", "b"))


@pytest.mark.parametrize("rows", [2, 7, 32])
def test_a_large_batch_is_answered_in_parts_that_fit(rows: int, monkeypatch: pytest.MonkeyPatch):
    arguments = {"in_channels": 1, "widths": [8], "blocks": 1, "num_classes": 3}
    spec = InputSpec(kind="image", shape=(1, 16, 16), mean=(0.0,), std=(1.0,), low=0.0, high=1.0)
    network = ResNet(**arguments).eval().requires_grad_(False)
    model = Predictor.build(
        network,
        NetworkSpec(class_path="dubio.models.ResNet", init_args=arguments),
        spec,
        ("a", "b", "c"),
        2,
        strategy="loop",
    )
    assert model.row_bytes >= 2 * 8 * 16 * 16 * 4  # a convolution's input and output
    encoded = model.encode(encoding.noise(spec, rows))
    whole = model.forward(encoded)
    monkeypatch.setattr(predictor_module, "MAX_LIVE", 3 * model.row_bytes // 2)
    budget = Budget("a batch", 2**30, 2**30)
    with torch.inference_mode(), budget:
        parts = model.forward(encoded)
    # The network runs a row at a time; what it answered is held, and once more while it is joined.
    answers = 2 * (whole.inputs_BF.nbytes + whole.logits_BC.nbytes)
    assert budget.peak <= min(3 * model.row_bytes // 2 + answers, rows * model.row_bytes)
    torch.testing.assert_close(parts.inputs_BF, whole.inputs_BF)
    torch.testing.assert_close(parts.logits_BC, whole.logits_BC)
