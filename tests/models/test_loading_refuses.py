from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dubio.models import MLP, InputSpec, load
from dubio.models.checkpoint.schema import KEY
from dubio.models.checkpoint.state_dict import sha256
from dubio.models.errors import UnreadableCheckpoint
from dubio.uncertainty.detection.conformal import level

Content = dict[str, Any]
Edit = Callable[[Callable[[Content], object]], Path]


def _walk(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to every field of a section."""
    if isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            yield from _walk(item, (*path, key))


def _set(value: Any, path: tuple[Any, ...], new: object) -> Any:
    """A copy with one field replaced."""
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = _set(copied[path[0]], path[1:], new)
    return tuple(copied) if isinstance(value, tuple) else copied


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _part(content: Content, name: str) -> Content:
    return next(part for part in content[KEY]["detector"]["parts"] if part["name"] == name)


def test_weights_changed_after_calibration_are_refused(edit: Edit):
    with pytest.raises(UnreadableCheckpoint, match=r"model\.ckpt: field `dubio.provenance.weights_sha256`"):
        load(edit(lambda content: content["state_dict"]["network.head.bias"].add_(1e-6)))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"num_samples": 17},
        {"fingerprint": "0" * 64},
        {"sites": [{"kind": "dropout", "p": 0.5, "shape": [24]}]},
        {"sites": [{"kind": "dropout", "p": 0.5, "shape": [24]}, {"kind": "dropout", "p": 0.25, "shape": [20]}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_committee_that_was_not_the_calibrated_one_is_refused(change: Content, edit: Edit):
    with pytest.raises(UnreadableCheckpoint, match=r"field `dubio.committee`.*not? .*calibrated|other sites"):
        load(edit(lambda content: content[KEY]["committee"].update(change)))


def test_other_dropout_rates_are_another_committee(edit: Edit):
    with pytest.raises(UnreadableCheckpoint, match=r"field `dubio\.committee`"):
        load(edit(lambda content: content[KEY]["network"]["init_args"].update(rates=[0.4, 0.3])))


@pytest.mark.parametrize(
    ("field", "new", "rule"),
    [
        ("scores_N", lambda scores: scores.flip(0), "ascending order"),
        ("scores_N", lambda scores: scores[:100], "`level` to be"),
        ("scores_N", lambda scores: scores[:0], "float32 or float64 tensor"),
        ("scores_N", lambda scores: scores * math.nan, "finite"),
        ("scores_N", lambda scores: scores.long(), "float32 or float64 tensor"),
        ("scores_N", lambda scores: scores.unsqueeze(0), "with 1 axes"),
        ("scores_N", lambda scores: scores.tolist(), "float32 or float64 tensor"),
        ("scores_N", lambda scores: scores.to(torch.complex64), "float32 or float64 tensor"),
        ("level", lambda level: level * 2, "`level` to be"),
        ("level", lambda level: math.nan, "calibration.level` to be a number, but got NaN"),
        ("level", lambda level: 1, "of type float"),
        ("alpha", lambda alpha: 0.5, "`level` to be"),
        ("alpha", lambda alpha: 0.0, r"`alpha` to be a number in \(0, 1\)"),
        ("alpha", lambda alpha: 5e-324, "calibration"),
        ("alpha", lambda alpha: 10**300, "64 bits"),
        ("delta", lambda delta: math.nan, "calibration.delta` to be a number, but got NaN"),
        ("delta", lambda delta: "0.1", "of type float"),
    ],
)
def test_an_edited_calibration_is_refused(field: str, new: Callable[[Any], Any], rule: str, edit: Edit):
    path = edit(lambda content: content[KEY]["calibration"].update({field: new(content[KEY]["calibration"][field])}))
    with pytest.raises(UnreadableCheckpoint, match=rf"model\.ckpt: field `dubio.*calibration.*{rule}"):
        load(path)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"format_version": 1}, "auto.format_version` to be 2"),
        ({"committee": 17}, "auto.committee`: expected the committee's 16 members, but got 17"),
        ({"committee": 8}, "rise to less than the committee's 8"),
        ({"committee": "16"}, "auto.committee` to be of type int"),
        ({"decided": math.nan}, "auto.decided` to be a number, but got NaN"),
        ({"stages": {}}, "auto.stages` to be a list"),
        ({"stages": [{}]}, r"auto.stages\[0\]` to be a dict"),
        ({"extra": 1}, "auto` to be a dict with the keys"),
    ],
)
def test_an_edited_stopping_rule_is_refused(change: Content, rule: str, edit: Edit):
    with pytest.raises(UnreadableCheckpoint, match=rule):
        load(edit(lambda content: content[KEY]["auto"].update(change)))


def test_a_stopping_rule_that_promises_something_else_is_refused(edit: Edit):
    def change(content: Content) -> None:
        calibration = content[KEY]["auto"]["calibration"]
        calibration.update(alpha=0.2, level=level(len(calibration["scores_N"]), 0.2, calibration["delta"]))

    with pytest.raises(UnreadableCheckpoint, match=r"auto.calibration` to make the detector's own promise"):
        load(edit(change))


@pytest.mark.parametrize("ranks", [[], [1], None])
def test_a_stage_without_its_ranks_is_refused(ranks: object, edit: Edit):
    with pytest.raises(UnreadableCheckpoint, match=r"auto.stages\[1\].ranks"):
        load(edit(lambda content: content[KEY]["auto"]["stages"][1].update(ranks=ranks)))


@pytest.mark.parametrize(
    ("part", "field", "new"),
    [
        ("neighbours", "k", lambda k: 0),
        ("neighbours", "k", lambda k: -1),
        ("neighbours", "k", lambda k: 2**62),
        ("neighbours", "k", lambda k: 10**300),
        ("neighbours", "k", lambda k: True),
        ("neighbours", "k", lambda k: 10.0),
        ("neighbours", "bank_NF", lambda bank: bank[:, :-1]),
        ("neighbours", "bank_NF", lambda bank: bank[:0]),
        ("neighbours", "bank_NF", lambda bank: bank.int()),
        ("neighbours", "bank_NF", lambda bank: bank.float()),
        ("neighbours", "bank_NF", lambda bank: bank * math.inf),
        ("relative_mahalanobis", "gaussians", lambda held: held | {"mean_F": held["mean_F"][:-1]}),
        ("relative_mahalanobis", "gaussians", lambda held: held | {"class_means_CG": torch.zeros(3, 2)}),
        ("relative_mahalanobis", "gaussians", lambda held: held | {"whitening_FG": torch.eye(2)}),
        ("relative_mahalanobis", "gaussians", lambda held: held | {"whitening_FG": held["whitening_FG"] * math.nan}),
        ("relative_mahalanobis", "gaussians", lambda held: held | {"precision_F": held["precision_F"].half()}),
        ("relative_mahalanobis", "gaussians", lambda held: held | {"precision_F": held["precision_F"].bool()}),
        ("relative_mahalanobis", "gaussians", lambda held: held | {"whitening_FG": "http://a/b.pt"}),
        ("relative_mahalanobis", "gaussians", lambda gaussians: None),
        ("input_mahalanobis", "gaussians", lambda gaussians: "input_class_mahalanobis"),
    ],
)
def test_an_edited_detector_is_refused(part: str, field: str, new: Callable[[Any], Any], edit: Edit):
    def change(content: Content) -> None:
        fitted = _part(content, part)["fitted"]
        fitted[field] = new(fitted[field])

    path = edit(change)
    with pytest.raises(UnreadableCheckpoint, match=r"model\.ckpt: field `dubio.*detector"):
        load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: parts.clear(),
        lambda parts: parts.append(5),
        lambda parts: parts.append({"name": "energy"}),
        lambda parts: parts[0].update(name="os.system"),
        lambda parts: parts[0].update(name=["energy"]),
        lambda parts: parts[0].update(name="neighbours"),
        lambda parts: parts[1].update(name="energy"),
        lambda parts: parts[1].update(fitted=None),
        lambda parts: parts[1]["fitted"].update(surprise=1),
        lambda parts: parts[1]["fitted"].pop("k"),
        lambda parts: parts[0]["ranks"].update(scores_N=parts[0]["ranks"]["scores_N"].flip(0)),
        lambda parts: parts[0]["ranks"].update(scores_N=torch.ones(5)),
        lambda parts: parts[0].update(ranks=None),
    ],
)
def test_edited_parts_are_refused(change: Callable[[list[Any]], object], edit: Edit):
    with pytest.raises(UnreadableCheckpoint, match=r"model\.ckpt: field `dubio.*detector"):
        load(edit(lambda content: change(content[KEY]["detector"]["parts"])))


@pytest.mark.parametrize(
    "network",
    [
        {"class_path": "os.system", "init_args": {}},
        {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}},
        {"class_path": "dubio.models.ConvNet", "init_args": {}},
        {
            "class_path": "dubio.models.MLP",
            "init_args": {"body": {"class_path": "os.system", "init_args": {"command": "id"}}},
        },
        {"class_path": "dubio.models.MLP", "init_args": {"widths": [{"class_path": "os.system"}]}},
        {"class_path": "dubio.models.MLP", "init_args": "https://example.org/args.yaml"},
        {"class_path": "dubio.models.MLP", "init_args": {"widths": "/etc/passwd"}},
        {"class_path": "dubio.models.MLP", "init_args": {"widths": "widths"}},
        {"class_path": "dubio.models.MLP", "init_args": {"in_features": 2**40}},
        {"class_path": "dubio.models.MLP", "init_args": {"in_features": 2**63}},
        {"class_path": "dubio.models.MLP", "init_args": {"in_features": 10**300}},
        {"class_path": "dubio.models.MLP", "init_args": {"widths": [2**40, 2**40], "rates": [0.5, 0.5]}},
        {"class_path": "dubio.models.MLP", "init_args": {"widths": [1] * 300_000, "rates": [0.5] * 300_000}},
        {"class_path": "dubio.models.ConvNet", "init_args": {"widths": [1] * 256, "rates": [0.5] * 256}},
        "https://example.org/network.yaml",
        "dubio.models.MLP",
        None,
    ],
)
def test_a_hostile_network_is_refused_and_takes_no_memory(network: object, edit: Edit):
    path = edit(lambda content: content[KEY].update(network=network))
    before = psutil.Process().memory_info().rss
    with pytest.raises(UnreadableCheckpoint, match=r"model\.ckpt: field `dubio.*network|values, at most"):
        load(path)
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


def test_lists_that_share_their_items_do_not_keep_the_loader_busy(edit: Edit):
    value: list[Any] = [1.0] * 256
    for _ in range(3):
        value = [value] * 256
    with pytest.raises(UnreadableCheckpoint, match="there are more than 2097152 values"):
        load(edit(lambda content: content[KEY]["network"]["init_args"].update(rates=value)))


@pytest.mark.parametrize("field", ["detector", "calibration", "classes"])
def test_extremely_deep_nesting_is_refused(field: str, tmp_path: Path, saved: Path):
    content = torch.load(saved, weights_only=True)
    value: Any = []
    # Deeper than this, torch.save itself gives up.
    for _ in range(150):
        value = [value]
    content[KEY][field] = {"parts": value} if field == "detector" else value
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(UnreadableCheckpoint, match=rf"field `dubio\.{field}.* deep"):
        load(tmp_path / "model.ckpt")


def test_many_members_of_a_wide_network_are_refused_before_their_masks_are_drawn(saved: Path, tmp_path: Path):
    arguments = {"in_features": 1, "widths": [2**20], "num_classes": 2, "rates": [0.5]}
    state = {name: torch.zeros(tensor.shape) for name, tensor in MLP(**arguments).state_dict().items()}
    content = torch.load(saved, weights_only=True)
    content["state_dict"] = {f"network.{name}": tensor for name, tensor in state.items()}
    content[KEY]["network"]["init_args"] = arguments
    content[KEY]["input"] = InputSpec(
        kind="numbers", shape=(1,), mean=(0.0,), std=(1.0,), low=0.0, high=1.0
    ).model_dump()
    content[KEY]["classes"] = ["a", "b"]
    content[KEY]["committee"]["num_samples"] = 4096
    content[KEY]["provenance"]["weights_sha256"] = sha256(state)
    torch.save(content, tmp_path / "model.ckpt")
    before = psutil.Process().memory_info().rss
    with pytest.raises(UnreadableCheckpoint, match="masks of 4096 members would hold 4294967296 numbers"):
        load(tmp_path / "model.ckpt")
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [1, 5, 5]}, "25"),
        ({"shape": [1, 2, 8]}, None),
        ({"low": 1e300, "high": 1e300}, "beyond float32"),
        ({"std": [1e-300]}, "overflow"),
        ({"mean": [1e300]}, "overflow"),
    ],
)
def test_an_edited_input_loads_or_is_refused(change: Content, message: str | None, edit: Edit):
    path = edit(lambda content: content[KEY]["input"].update(change))
    if message is None:
        assert load(path).input.shape == tuple(change["shape"])
    else:
        with pytest.raises(UnreadableCheckpoint, match=rf"model\.ckpt: field `dubio`.*input.*{message}"):
            load(path)


def test_weights_that_are_not_numbers_are_refused(edit: Edit):
    def spoil(content: Content) -> None:
        content["state_dict"]["network.head.bias"].fill_(math.nan)
        state = {
            name.removeprefix("network."): tensor
            for name, tensor in content["state_dict"].items()
            if name.startswith("network.")
        }
        content[KEY]["provenance"]["weights_sha256"] = sha256(state)

    with pytest.raises(UnreadableCheckpoint, match=r"model\.ckpt"):
        load(edit(spoil))


def _leaf() -> st.SearchStrategy[Any]:
    odd = [
        None,
        True,
        0,
        -1,
        1,
        2**31,
        2**62,
        2**63,
        10**300,
        -0.0,
        1e-320,
        1e300,
        math.nan,
        math.inf,
        "",
        "dubio.models.MLP",
        "os.system",
        "/etc/passwd",
        "http://127.0.0.1:9/x",
        "\x1b[31m",
        "a" * 300,
        1j,
        (),
        [],
        {},
        {1: 2},
        {"class_path": "os.system"},
        [[[[[[[[[[[[[[]]]]]]]]]]]]]],
        torch.zeros(0),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(3, dtype=torch.bool),
        torch.zeros(2, 2, dtype=torch.float16),
        torch.full((2, 2), math.nan),
        torch.ones(2, 2, requires_grad=True),
        torch.tensor(1.0),
        torch.float32,
        torch.Size([1, 4, 4]),
    ]
    numbers = st.one_of(st.integers(), st.floats())
    return st.one_of(st.sampled_from(odd), numbers, st.text(max_size=5), st.lists(numbers, max_size=3))


def _fuzz(saved: Path, folder: Path, data: st.DataObject) -> None:
    content = torch.load(saved, weights_only=True)
    section = content[KEY]
    path = data.draw(st.sampled_from(sorted(_walk(section), key=str)))
    old = _at(section, path)
    choices = [_leaf()]
    if isinstance(old, Tensor):
        changes: list[Callable[[Tensor], Tensor]] = [
            Tensor.double,
            Tensor.half,
            Tensor.bfloat16,
            Tensor.long,
            Tensor.neg,
            lambda tensor: tensor[1:],
            lambda tensor: tensor[..., 1:],
            lambda tensor: tensor.flip(0),
            lambda tensor: tensor * 1e30,
            lambda tensor: tensor.unsqueeze(0),
            lambda tensor: tensor * 0,
        ]
        choices.append(st.sampled_from(changes).map(lambda change: change(copy.copy(old))))
    content[KEY] = _set(section, path, data.draw(st.one_of(choices)))
    file = folder / "model.ckpt"
    torch.save(content, file)
    try:
        predictor = load(file)
    except UnreadableCheckpoint as error:
        message = str(error)
        assert message.startswith(f"{file}: field `{KEY}"), message
        assert path[0] in message, message
    else:
        prediction = predictor.predict(torch.full((1, *predictor.input.shape), 5.0))
        assert np.isfinite(prediction.mc_mean).all()


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_one_field_spoiled_is_a_good_load_or_names_file_and_field(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    _fuzz(saved, tmp_path_factory.getbasetemp(), data)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_fields_spoiled(saved: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    _fuzz(saved, tmp_path_factory.getbasetemp(), data)
