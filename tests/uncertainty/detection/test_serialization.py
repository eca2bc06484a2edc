"""State goes to plain data and comes back bit-exactly; hostile state is refused, never misread."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dubio.uncertainty import AdaptiveSampling, Calibration, Detector, Outputs
from dubio.uncertainty.detection.adaptive import recorded
from dubio.uncertainty.detection.ecdf import Ranks
from dubio.uncertainty.detection.gaussians import ClassGaussians
from dubio.uncertainty.detection.knn import NearestNeighbours
from dubio.uncertainty.detection.label_sets import UNBOUNDED, LabelSets
from dubio.uncertainty.detection.mahalanobis import InputMahalanobis
from dubio.uncertainty.detection.promises import AnswerPromises
from dubio.uncertainty.detection.registry import SCORES
from dubio.uncertainty.detection.selective import Acceptance
from dubio.uncertainty.detection.serialization import (
    dump,
    dump_detector,
    dump_promises,
    dump_stopping,
    load,
    load_detector,
    load_promises,
    load_stopping,
)
from dubio.uncertainty.errors import NotFitted, UncertaintyError

EVERY_SCORE = tuple(SCORES)


@pytest.fixture
def detector(trained) -> Detector:
    return Detector.fit(trained.train, trained.train_labels_N, trained.select, EVERY_SCORE).calibrate(trained.select)


def _through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


def test_a_detector_comes_back_bit_exactly_from_a_file(trained, detector):
    state = _through_a_file({"detector": dump_detector(detector), "calibration": dump(detector.calibration)})
    calibration = load(Calibration, state["calibration"], "calibration")
    loaded = replace(load_detector(state["detector"]), calibration=calibration)
    assert _same(dump_detector(loaded), dump_detector(detector))
    assert _same(dump(loaded.calibration), dump(detector.calibration))
    before, after = detector.judge(trained.held_out), loaded.judge(trained.held_out)
    assert torch.equal(before.p_value_B, after.p_value_B)
    assert torch.equal(before.flagged_B, after.flagged_B)
    assert before.reasons == after.reasons


def test_what_is_dumped_is_plain(detector):
    def leaves(state: Any) -> Iterator[Any]:
        inner = state.values() if isinstance(state, dict) else state if isinstance(state, list) else None
        if inner is None:
            yield state
        else:
            for each in inner:
                yield from leaves(each)

    plain = {type(leaf) for leaf in leaves([dump_detector(detector), dump(detector.calibration)])}
    assert plain <= {Tensor, str, int, float, type(None)}


GAUSSIANS = {
    "mean_F": torch.zeros(3),
    "whitening_FG": torch.eye(3, 4),
    "precision_F": torch.ones(3),
    "class_means_CG": torch.zeros(2, 4),
}
BANK = {"bank_NF": torch.eye(3, dtype=torch.float64), "k": 2}
BLOCK = {"name": "body.0", "axis": 1, "gaussians": GAUSSIANS, "centre": 1.0, "spread": 0.5}
FITTED: dict[type, dict[str, Any]] = {
    Ranks: {"scores_N": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)},
    NearestNeighbours: BANK,
    SCORES["nnguide"]: BANK,
    InputMahalanobis: {"gaussians": GAUSSIANS},
    ClassGaussians: GAUSSIANS,
    SCORES["mahalanobis"]: {"gaussians": GAUSSIANS},
    SCORES["input_class_mahalanobis"]: {"gaussians": GAUSSIANS},
    SCORES["unit_mahalanobis"]: {"gaussians": GAUSSIANS},
    SCORES["relative_mahalanobis"]: {"gaussians": GAUSSIANS},
    SCORES["unit_relative_mahalanobis"]: {"gaussians": GAUSSIANS},
    SCORES["ddu"]: {"means_CF": torch.zeros(2, 3), "whitenings_CFF": torch.ones(2, 3, 3), "offsets_C": torch.zeros(2)},
    SCORES["vim"]: {"origin_F": torch.zeros(3), "residual_FR": torch.ones(3, 2), "alpha": 0.5},
    SCORES["core"]: {
        "mean_F": torch.zeros(3),
        "residual_FR": torch.ones(3, 2),
        "directions_CR": torch.ones(4, 2),
        "energy_mean": 1.0,
        "energy_std": 2.0,
        "cosine_mean": 0.5,
        "cosine_std": 0.1,
    },
    SCORES["fdbd"]: {"mean_F": torch.zeros(3), "gaps_CC": torch.ones(2, 2)},
    SCORES["react"]: {"weight_CF": torch.ones(2, 3), "bias_C": torch.zeros(2), "clip": 1.0},
    SCORES["block_mahalanobis"]: {"parts": [BLOCK, BLOCK | {"name": "body.1", "axis": -1}]},
    Calibration: dump(Calibration.fit(torch.arange(100.0))),
}
FIELDS = [(kind, name) for kind, state in FITTED.items() for name in state]
TENSOR_FIELDS = [(kind, name) for kind, name in FIELDS if isinstance(FITTED[kind][name], Tensor)]


def _id(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


@pytest.mark.parametrize("kind", FITTED, ids=_id)
def test_a_sound_state_is_taken(kind):
    assert _same(dump(load(kind, FITTED[kind], "where")), FITTED[kind])


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=_id)
def test_missing_and_unknown_fields_are_refused(kind, name):
    state = dict(FITTED[kind])
    with pytest.raises(UncertaintyError, match="`where` to be a dict with the keys"):
        load(kind, {**state, "more": 1}, "where")
    del state[name]
    with pytest.raises(UncertaintyError, match=name):
        load(kind, state, "where")


def _huge_by_stride(value: Tensor) -> Tensor:
    return torch.zeros(1, dtype=value.dtype).expand([10**7, *[1] * (value.ndim - 1)])


SPOILED_TENSORS = {
    "NaN": lambda value: value * math.nan,
    "infinity": lambda value: value + math.inf,
    "integer": lambda value: value.long(),
    "boolean": lambda value: value.bool(),
    "complex": lambda value: value.to(torch.complex64),
    "half": lambda value: value.half(),
    "float8": lambda value: value.to(torch.float8_e4m3fn),
    "sparse": lambda value: value.to_sparse(),
    "meta": lambda value: value.to("meta"),
    "nested": lambda value: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "parameter": torch.nn.Parameter,
    "one axis more": lambda value: value[None],
    "one axis less": lambda value: value[0],
    "empty": lambda value: value[:0],
    "larger than what is stored": _huge_by_stride,
    "list": lambda value: value.tolist(),
    "None": lambda value: None,
}


@pytest.mark.parametrize("spoil", SPOILED_TENSORS.values(), ids=SPOILED_TENSORS.keys())
@pytest.mark.parametrize(("kind", "name"), TENSOR_FIELDS, ids=_id)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_spoiled_tensors_are_refused_by_name(kind, name, spoil):
    state = FITTED[kind]
    with pytest.raises(UncertaintyError, match=rf"`where.{name}`"):
        load(kind, {**state, name: spoil(state[name])}, "where")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (Ranks, {"scores_N": torch.tensor([2.0, 1.0])}),
        (Ranks, {"scores_N": torch.tensor([1.0])}),
        (NearestNeighbours, {"k": 0}),
        (NearestNeighbours, {"k": 4}),
        (NearestNeighbours, {"k": True}),
        (NearestNeighbours, {"k": 2.0}),
        (NearestNeighbours, {"k": 10**5000}),
        (NearestNeighbours, {"k": -(10**5000)}),
        (ClassGaussians, {"mean_F": torch.zeros(4)}),
        (ClassGaussians, {"class_means_CG": torch.zeros(2, 8)}),
        (ClassGaussians, {"precision_F": torch.ones(4)}),
        (ClassGaussians, {"whitening_FG": torch.eye(3)}),
        (ClassGaussians, {"whitening_FG": torch.eye(3, 5), "class_means_CG": torch.zeros(2, 5)}),
        (InputMahalanobis, {"gaussians": GAUSSIANS | {"whitening_FG": torch.eye(4)}}),
        (Calibration, {"level": 0.9}),
        (Calibration, {"level": math.nan}),
        (Calibration, {"alpha": math.nan}),
        (Calibration, {"alpha": 5e-324}),
        (Calibration, {"alpha": 1}),
        (Calibration, {"delta": -math.inf}),
        (Calibration, {"scores_N": torch.arange(100.0).flip(0)}),
        (Calibration, {"scores_N": torch.arange(50.0)}),
    ],
)
def test_values_that_do_not_belong_together_are_refused(kind, changes):
    with pytest.raises(UncertaintyError):
        load(kind, {**FITTED[kind], **changes}, "where")


KEYS = ["name", "ranks", "fitted", "scores_N", "bank_NF", "k", "parts", "gaussians", "axis"]
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(EVERY_SCORE)
    | st.binary(max_size=5)
    | st.builds(torch.zeros, st.lists(st.integers(0, 3), max_size=4))
    | st.builds(torch.arange, st.integers(0, 4).map(float)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.integers(),
            inner,
        )
    ),
    max_leaves=8,
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(plain, st.sampled_from(list(FITTED)))
def test_anything_at_all_is_taken_or_refused_cleanly(state, kind):
    for attempt in (lambda: load(kind, state, "where"), lambda: load_detector(state)):
        with contextlib.suppress(UncertaintyError):
            attempt()


def _paths(state: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = state if isinstance(state, dict) else range(len(state)) if isinstance(state, list) else ()
    for key in keys:
        yield (*path, key)
        yield from _paths(state[key], (*path, key))


WHOLE = {"parts": [{"name": name, "ranks": FITTED[Ranks], "fitted": FITTED.get(kind)} for name, kind in SCORES.items()]}


def test_a_detector_of_every_score_is_taken():
    assert [score.name for score in load_detector(WHOLE).scores] == list(SCORES)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data())
def test_a_detector_with_one_thing_changed_is_taken_or_refused_cleanly(data):
    # Of one score or two: what lies before the change is taken anyway, and the next may have its name.
    first = data.draw(st.integers(0, len(SCORES) - 1))
    state: Any = copy.deepcopy({"parts": WHOLE["parts"][first : first + 2]})
    *outer, last = data.draw(st.sampled_from(list(_paths(state))))
    target = state
    for key in outer:
        target = target[key]
    target[last] = data.draw(plain)
    with contextlib.suppress(UncertaintyError):
        load_detector(state)


@pytest.mark.parametrize(
    "part",
    [
        {"name": "entropy", "fitted": None},
        {"name": "energy", "fitted": {}},
        {"name": "neighbours", "fitted": None},
        {"name": "neighbours", "fitted": FITTED[InputMahalanobis]},
        {"name": ["energy"], "fitted": None},
        {"name": 10**5000, "fitted": None},
        {"name": "energy"},
    ],
)
def test_parts_that_are_no_scores_are_refused(part):
    with pytest.raises(UncertaintyError, match=r"detector.parts\[0\]"):
        load_detector({"parts": [{"ranks": FITTED[Ranks], **part}]})


@pytest.mark.parametrize("state", [None, [], {}, {"parts": None}, {"parts": []}, {"parts": 10**5000}, {"parts": "x"}])
def test_a_detector_without_parts_is_refused(state):
    with pytest.raises(UncertaintyError, match="at least one part"):
        load_detector(state)


def test_a_part_that_appears_twice_is_refused():
    part = {"name": "energy", "ranks": FITTED[Ranks], "fitted": None}
    with pytest.raises(UncertaintyError, match="different"):
        load_detector({"parts": [part, dict(part)]})


def test_outputs_of_other_widths_does_not_pass_unnoticed(trained, detector):
    # The loader's self-test relies on it: a detector of another network fails loudly on its first row.
    seen = trained.select.deterministic
    narrow = Outputs(replace(seen, features_BF=seen.features()[:, :-1]), trained.select.probs_KBC)
    with pytest.raises(RuntimeError):
        detector.judge(narrow)


@pytest.fixture
def stopping(trained, detector) -> AdaptiveSampling:
    fitted = AdaptiveSampling.fit(detector, trained.select, 400, stages=(4, 8))
    return fitted.calibrate(detector, trained.select)


def test_a_stopping_rule_comes_back_bit_exactly_from_a_file(trained, detector, stopping):
    loaded = load_stopping(_through_a_file({"auto": dump_stopping(stopping)})["auto"], detector)
    assert _same(dump_stopping(loaded), dump_stopping(stopping))
    asked = trained.held_out.deterministic
    before, after = (rule.run(detector, asked, recorded(trained.held_out.probs_KBC)) for rule in (stopping, loaded))
    assert torch.equal(before.samples_B, after.samples_B)
    assert torch.equal(before.ranks_SB, after.ranks_SB)


def test_only_a_calibrated_stopping_rule_is_dumped(trained, detector):
    with pytest.raises(NotFitted, match="calibrate"):
        dump_stopping(AdaptiveSampling.fit(detector, trained.select, 400))


@settings(
    derandomize=True, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_stopping_rule_with_one_thing_changed_is_taken_or_refused_cleanly(detector, stopping, data):
    state = copy.deepcopy(dump_stopping(stopping))
    *outer, last = data.draw(st.sampled_from(list(_paths(state))))
    target = state
    for key in outer:
        target = target[key]
    target[last] = data.draw(plain)
    with contextlib.suppress(UncertaintyError):
        load_stopping(state, detector)


@pytest.fixture
def promises(detector) -> AnswerPromises:
    flag = detector.calibration
    rules = [
        Acceptance(0.05, 0.05, "mc_margin", float(flag.scores_N[300]), 0.5, len(flag.scores_N), 300, 3),
        Acceptance(0.001, 0.05, "probability", rows=len(flag.scores_N), refusal="too_few_rows", risk_due=0.01),
    ]
    return AnswerPromises(
        tuple(rules), LabelSets("raps", "class", 0.9, 0.1, 2, torch.tensor([0.5, 0.25, UNBOUNDED], dtype=torch.float64))
    )


def test_promises_about_answers_come_back_bit_exactly_from_a_file(detector, promises):
    promises = replace(promises, label_sets=replace(promises.label_sets, quantiles_G=torch.rand(3).double()))
    state = _through_a_file({"answers": dump_promises(promises)})["answers"]
    assert _same(dump_promises(load_promises(state, detector.calibration, 3)), dump_promises(promises))


@settings(
    derandomize=True, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_promises_with_one_thing_changed_are_taken_or_refused_cleanly(detector, promises, data):
    state = copy.deepcopy(dump_promises(promises))
    *outer, last = data.draw(st.sampled_from(list(_paths(state))))
    target = state
    for key in outer:
        target = target[key]
    target[last] = data.draw(plain | st.integers(0, 10**18))
    with contextlib.suppress(UncertaintyError):
        load_promises(state, detector.calibration, 3)


def test_counts_that_nobody_stored_cost_no_time(detector, promises):
    state = dump_promises(promises)
    huge = {"rows": 2**62, "accepted": 2**62, "wrong": 2**61}
    with pytest.raises(UncertaintyError, match="calibration rows"):
        load_promises({**state, "acceptances": [state["acceptances"][0] | huge]}, detector.calibration, 3)
    with pytest.raises(UncertaintyError, match="list of at most 20 risks"):
        load_promises({**state, "acceptances": state["acceptances"] * 11}, detector.calibration, 3)


@pytest.mark.parametrize("classes", [2, 4])
def test_promises_for_another_number_of_classes_are_refused(detector, promises, classes):
    with pytest.raises(UncertaintyError, match="quantiles"):
        load_promises(dump_promises(promises), detector.calibration, classes)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(plain)
def test_anything_at_all_is_no_stopping_rule(state):
    with pytest.raises(UncertaintyError, match="auto"):
        load_stopping(state, Detector((), {}))
