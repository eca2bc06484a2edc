from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor, nn

from dubio.models import MLP, ConvNet, InputSpec, NetworkSpec, Predictor, Provenance, RecurrentNet, load, save
from dubio.models.checkpoint.schema import KEY
from dubio.models.checkpoint.state_dict import sha256
from dubio.models.errors import ModelError, UnreadableCheckpoint, UnusableDevice
from dubio.models.loading import check_cost
from dubio.models.spec import CommitteeSpec, SiteSpec
from dubio.uncertainty import AdaptiveSampling, Detector
from dubio.uncertainty.errors import NotFitted
from tests.models.conftest import STRATEGY

Content = dict[str, Any]
Edit = Callable[[Callable[[Content], object]], Path]

ARRAYS = ("label", "probabilities", "mc_label", "mc_mean", "mc_std", "mutual_information", "p_value", "flagged")


def _assert_same_answers(a: Predictor, b: Predictor, rows: Tensor) -> None:
    mixed = torch.cat([rows, rows * 3])
    left, right = a.predict(mixed), b.predict(mixed)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    assert (left.reasons, left.level) == (right.reasons, right.level)
    assert torch.equal(a.deterministic(mixed).logits_BC, b.deterministic(mixed).logits_BC)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return type(a) is type(b) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


def test_a_saved_predictor_answers_as_before_to_the_last_bit(trained: Predictor, loaded: Predictor, rows: Tensor):
    _assert_same_answers(trained, loaded, rows)
    assert loaded.describe() == trained.describe()
    assert loaded.provenance == trained.provenance


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_answers_what_the_cpu_answers(saved: Path, loaded: Predictor, rows: Tensor):
    there = load(saved, device="cuda")
    for batch in (rows, rows[:1], rows[:3] * 3):
        here, answer = loaded.predict(batch), there.predict(batch)
        for name in ("probabilities", "mc_mean", "mc_std"):
            np.testing.assert_allclose(getattr(answer, name), getattr(here, name), atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(answer.label, here.label)
        assert np.abs(answer.p_value - here.p_value).max() < 0.05  # a rank or two


@pytest.mark.parametrize("strategy", ["chain", "thinned", "loop"])
def test_members_are_run_as_the_caller_wants(saved: Path, loaded: Predictor, rows: Tensor, strategy: str):
    wanted = load(saved, strategy=strategy)
    assert wanted.committee.strategy == strategy
    torch.testing.assert_close(wanted.committee(rows), loaded.committee(rows), rtol=1e-5, atol=1e-5)
    with pytest.raises(UnreadableCheckpoint, match="`strategy`: expected one of chain, thinned"):
        load(saved, strategy="fastest")


def test_a_saved_stopping_rule_stops_as_before_to_the_last_bit(trained: Predictor, loaded: Predictor, rows: Tensor):
    mixed = torch.cat([rows, rows * 3])
    left, right = (predictor.predict(mixed, samples="auto") for predictor in (trained, loaded))
    for name in ("samples", *ARRAYS):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    assert loaded.describe()["auto"] == {"stages": [4, 8, 16]}


def test_a_second_round_trip_changes_nothing(loaded: Predictor, saved: Path, rows: Tensor, tmp_path: Path):
    save(loaded, saved, tmp_path / "again.ckpt")
    _assert_same_answers(loaded, load(tmp_path / "again.ckpt", strategy=STRATEGY), rows)


def test_everything_else_in_the_checkpoint_is_kept(lightning_file: Path, saved: Path):
    before = torch.load(lightning_file, weights_only=True)
    after = torch.load(saved, weights_only=True)
    assert after.keys() == before.keys() | {KEY}
    assert all(_same(before[key], after[key]) for key in before)


def test_source_may_be_the_destination(trained: Predictor, lightning_file: Path, rows: Tensor, tmp_path: Path):
    path = Path(shutil.copy(lightning_file, tmp_path / "model.ckpt"))
    save(trained, path, path)
    save(trained, path, path)
    _assert_same_answers(trained, load(path, strategy=STRATEGY), rows)
    assert os.listdir(tmp_path) == ["model.ckpt"]


def test_paths_may_be_strings(trained: Predictor, lightning_file: Path, tmp_path: Path):
    save(trained, str(lightning_file), str(tmp_path / "model.ckpt"))
    assert load(str(tmp_path / "model.ckpt")).classes == trained.classes


def test_only_a_calibrated_predictor_can_be_saved(trained: Predictor, lightning_file: Path, tmp_path: Path):
    bare = dataclasses.replace(trained.detector, calibration=None)
    for change in ({"detector": None}, {"detector": bare}, {"stopping": None}, {"provenance": None}):
        with pytest.raises(NotFitted, match="calibrated predictor with provenance"):
            save(dataclasses.replace(trained, **change), lightning_file, tmp_path / "model.ckpt")
    assert os.listdir(tmp_path) == []


def test_a_source_with_other_weights_is_refused_and_the_old_file_kept(trained: Predictor, model_file: Path, edit: Edit):
    path = edit(lambda content: content["state_dict"]["network.head.bias"].add_(1))
    before = path.read_bytes()
    with pytest.raises(UnreadableCheckpoint, match="holds other weights than the predictor was calibrated with"):
        save(trained, path, path)
    assert path.read_bytes() == before


def test_loading_leaves_the_global_random_state_alone(saved: Path):
    before = torch.get_rng_state()
    load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_predictor_does_not_change_with_its_file(loaded: Predictor, model_file: Path, rows: Tensor):
    predictor = load(model_file, strategy=STRATEGY)
    with model_file.open("r+b") as file:
        file.write(b"\xff" * model_file.stat().st_size)
        file.truncate(100)
    _assert_same_answers(loaded, predictor, rows)


def test_a_device_that_is_not_there_is_not_blamed_on_the_file(saved: Path):
    for device in ("nowhere", "cuda:99"):
        with pytest.raises(UnusableDevice, match=f"that torch can use here, such as cpu, but got '{device}'"):
            load(saved, device=device)


def test_a_device_without_numbers_is_refused(saved: Path):
    with pytest.raises(UnusableDevice, match="Expected `device` to be cpu, cuda or cuda:N, but got 'meta'"):
        load(saved, device="meta")


ACME = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.body(x))
"""


def test_a_users_class_loads_where_it_is_trusted(
    saved: Path, trained: Predictor, rows: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "acme_nets.py").write_text(ACME)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    network = importlib.import_module("acme_nets").Net(8).eval().requires_grad_(False)
    spec = NetworkSpec(class_path="acme_nets.Net", init_args={"width": 8})
    predictor = Predictor.build(network, spec, trained.input, trained.classes, num_samples=4, strategy=STRATEGY)
    many = torch.cat([rows + step for step in torch.linspace(-1, 1, 10)])
    outputs = predictor.outputs(many)
    labels = torch.arange(len(many)) % 3
    detector = Detector.fit(outputs.deterministic, labels, outputs, k=3).calibrate(outputs, alpha=0.2, delta=0.2)
    provenance = Provenance(**{**trained.provenance.model_dump(), "weights_sha256": sha256(network.state_dict())})
    stopping = AdaptiveSampling((), 4, 1.0).calibrate(detector, outputs, alpha=0.2, delta=0.2)
    predictor = predictor.calibrated(trained.temperature, detector, provenance, stopping)
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    save(predictor, tmp_path / "last.ckpt", tmp_path / "model.ckpt")
    del sys.modules["acme_nets"]

    for trusted in ((), ("acme",), ("acme_net",), ("acme_nets.Net",)):
        with pytest.raises(UnreadableCheckpoint, match="neither in the registry"):
            load(tmp_path / "model.ckpt", trusted=trusted)
    assert "acme_nets" not in sys.modules
    again = load(tmp_path / "model.ckpt", trusted=("acme_nets",), strategy=STRATEGY)
    _assert_same_answers(predictor, again, rows)
    del sys.modules["acme_nets"]


def test_the_choice_of_sites_and_rates_is_kept(trained: Predictor, tmp_path: Path, lightning_file: Path, rows: Tensor):
    name = trained.committee.sites[-1].name
    chosen = Predictor.build(
        trained.network,
        trained.network_spec,
        trained.input,
        trained.classes,
        16,
        sites=[name],
        rates={"dropout": 0.4},
        strategy=STRATEGY,
    )
    detector, provenance = trained.detector, trained.provenance
    assert detector is not None
    assert provenance is not None
    calibrated = chosen.calibrated(trained.temperature, detector, provenance, trained.stopping)
    save(calibrated, lightning_file, tmp_path / "chosen.ckpt")
    section = torch.load(tmp_path / "chosen.ckpt", weights_only=True)[KEY]
    assert (section["committee"]["mc_sites"], section["committee"]["mc_rates"]) == ([name], {"dropout": 0.4})
    loaded = load(tmp_path / "chosen.ckpt", strategy=STRATEGY)
    assert [(site.name, site.p) for site in loaded.committee.sites] == [(name, 0.4)]
    assert loaded.describe()["committee"]["mc_sites"] == [name]
    assert torch.equal(loaded.member_logits(rows), chosen.member_logits(rows))

    section["committee"]["mc_rates"] = {"dropout": 0.35}
    torch.save(torch.load(tmp_path / "chosen.ckpt", weights_only=True) | {KEY: section}, tmp_path / "forged.ckpt")
    with pytest.raises(UnreadableCheckpoint, match="other sites or another fingerprint"):
        load(tmp_path / "forged.ckpt")


def _committee(num_samples: int) -> CommitteeSpec:
    # The sites that a file claims do not matter: those that the network has do.
    sites = [SiteSpec(kind="dropout", p=0.5, shape=[1])]
    return CommitteeSpec(num_samples=num_samples, seed=0, sites=sites, fingerprint="0" * 64)


def _image(channels: int, size: int) -> InputSpec:
    shape, one = (channels, size, size), (1.0,) * channels
    return InputSpec(kind="image", shape=shape, mean=one, std=one, low=0.0, high=1.0)


@pytest.mark.parametrize("network_class", [MLP, ConvNet, RecurrentNet])
def test_the_default_networks_are_affordable_with_the_largest_committee(network_class: type):
    with torch.device("meta"):
        outline = network_class().eval()
    check_cost(outline, _image(1, 28), _committee(4096))


def test_masks_of_many_members_over_many_units_are_refused():
    with torch.device("meta"):
        outline = MLP(in_features=1, widths=(2**22,), num_classes=2, rates=(0.5,)).eval()
    numbers = InputSpec(kind="numbers", shape=(1,), mean=(0.0,), std=(1.0,), low=0.0, high=1.0)
    check_cost(outline, numbers, _committee(64))
    with pytest.raises(ModelError, match="masks of 4096 members would hold 17179869184 numbers"):
        check_cost(outline, numbers, _committee(4096))


def test_huge_images_are_refused_and_take_no_memory():
    with torch.device("meta"):
        outline = ConvNet(image_size=4096, widths=(256,) * 12, rates=(0.2,) * 12, dense=1).eval()
    before = psutil.Process().memory_info().rss
    with pytest.raises(ModelError, match=r"one input (would take|takes more than) \d+ bytes"):
        check_cost(outline, _image(1, 4096), _committee(2))
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


def test_results_that_are_small_one_by_one_and_large_together_are_refused():
    class Dense(nn.Module):
        def __init__(self, layers: int) -> None:
            super().__init__()
            self.layers, self.drop = layers, nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return sum(tuple(self.drop(x + layer) for layer in range(self.layers)))

    check_cost(Dense(layers=3).eval(), _image(1, 4096), _committee(2))  # 64 MiB each
    with pytest.raises(ModelError, match=r"one input takes more than 1073741824 bytes at a time"):
        check_cost(Dense(layers=20).eval(), _image(1, 4096), _committee(2))


def test_a_pass_of_millions_of_steps_is_refused(monkeypatch: pytest.MonkeyPatch):
    with torch.device("meta"):
        outline = RecurrentNet(features=1, width=1, layers=2).eval()
    tall = InputSpec(kind="image", shape=(1, 2**24, 1), mean=(0.0,), std=(1.0,), low=0.0, high=1.0)
    monkeypatch.setattr("dubio.models.loading.MAX_OPERATIONS", 2**12)  # as large as it is, it takes seconds
    with pytest.raises(ModelError, match=r"one input takes more than 4096 operations"):
        check_cost(outline, tall, _committee(2))
