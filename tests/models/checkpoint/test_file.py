from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dubio.models import Predictor
from dubio.models.checkpoint import file
from dubio.models.checkpoint.schema import KEY
from dubio.models.errors import UnreadableCheckpoint

Edit = Callable[[Callable[[dict[str, Any]], object]], Path]
ROOT = Path(__file__).resolve().parents[3]


class Pickled:
    """Unpickles as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def _first(content: dict[str, Any]) -> str:
    return next(iter(content["state_dict"]))


def test_reading_gives_section_and_weights_without_the_prefix(saved: Path, trained: Predictor):
    read = file.read(saved)
    assert read.metadata.classes == ["left", "middle", "right"]
    state = trained.network.state_dict()
    assert read.weights.keys() == state.keys()
    assert all(torch.equal(read.weights[name], state[name]) for name in state)


def test_a_checkpoint_of_an_earlier_version_says_what_to_do(edit: Edit):
    with pytest.raises(
        UnreadableCheckpoint, match=r"format_version` is 1, not 3\); run `dubio-train calibrate` on it again"
    ):
        file.read(edit(lambda content: content[KEY].update(format_version=1)))


def test_a_checkpoint_that_is_not_calibrated_says_what_to_do(lightning_file: Path):
    with pytest.raises(UnreadableCheckpoint, match=rf"{lightning_file}: has no 'dubio' section.*dubio-train calibrate"):
        file.read(lightning_file)


def test_a_missing_file_says_what_to_do(tmp_path: Path):
    with pytest.raises(UnreadableCheckpoint, match="no such file; train one with `dubio-train fit`"):
        file.read(tmp_path / "model.ckpt")


def test_a_url_is_a_file_that_does_not_exist():
    with pytest.raises(UnreadableCheckpoint, match="no such file"):
        file.read("http://127.0.0.1:9/model.ckpt")


@pytest.mark.parametrize("where", ["top", "state_dict", "dubio", "callbacks"])
@pytest.mark.parametrize("variable", [None, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"])
def test_code_in_a_file_is_not_run(
    where: str, variable: str | None, edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    marker = tmp_path / "marker"
    code = Pickled(os.system, f"touch {marker}")

    def spoil(content: dict[str, Any]) -> None:
        (content if where == "top" else content[where])["code"] = code

    path = edit(spoil)
    if variable:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(UnreadableCheckpoint, match=rf"names `{os.system.__module__}\.system`.*nothing was run"):
        file.read(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "value",
    [np.float32(1), np.float64(1), np.zeros(2), Path("a"), b"bytes", bytearray(2), range(3), frozenset(), slice(1)],
    ids=lambda value: type(value).__name__,
)
def test_objects_that_are_not_plain_data_are_refused(value: object, edit: Edit):
    with pytest.raises(UnreadableCheckpoint, match=r"model\.ckpt: names `"):
        file.read(edit(lambda content: content.update(value=value)))


@pytest.mark.parametrize(
    "build",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.zeros(3, device="meta"),
        lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.quint8),
    ],
    ids=["sparse", "meta", "quantized"],
)
@pytest.mark.filterwarnings("ignore:.*quantize.*deprecated:UserWarning")
def test_tensors_that_are_not_dense_are_refused(build: Callable[[], Tensor], edit: Edit):
    tensor = build()
    with pytest.raises(UnreadableCheckpoint, match="neither plain data nor a dense tensor"):
        file.read(edit(lambda content: content["state_dict"].update({_first(content): tensor})))


@pytest.mark.parametrize("content", [[1], "text", torch.zeros(2), None, 5])
def test_a_file_that_holds_no_dict_is_refused(content: object, tmp_path: Path):
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(UnreadableCheckpoint, match=f"should hold a dict, but holds a {type(content).__name__}"):
        file.read(tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("state_dict"),
        lambda content: content.update(state_dict=[1]),
        lambda content: content.update(state_dict="http://a/b.ckpt"),
        lambda content: content["state_dict"].update({_first(content): 0.5}),
        lambda content: content["state_dict"].update({_first(content): {"nested": torch.zeros(1)}}),
        lambda content: content["state_dict"].update({5: torch.zeros(1)}),
        lambda content: content.update(state_dict={}),
        lambda content: content.update(state_dict={"other.a": torch.zeros(1)}),
    ],
)
def test_a_state_dict_is_tensors_by_name_with_the_prefix(change: Callable[[dict[str, Any]], object], edit: Edit):
    with pytest.raises(UnreadableCheckpoint, match=r"model\.ckpt: field `state_dict`"):
        file.read(edit(change))


@pytest.mark.parametrize("key", [10**300, 2**31, ("network.a",), None, 0.5, True])
def test_the_keys_of_a_dict_are_names_or_small_numbers(key: object, edit: Edit):
    with pytest.raises(UnreadableCheckpoint, match=r"model\.ckpt: the keys of a dict should be names or numbers of 32"):
        file.read(edit(lambda content: content["state_dict"].update({key: torch.zeros(1)})))


def test_weights_cannot_claim_more_than_the_file_has(edit: Edit):
    huge = torch.zeros(1).expand(2**20, 2**20)
    with pytest.raises(UnreadableCheckpoint, match=r"a tensor claims 4398046511104 bytes, but the file has 4 for it"):
        file.read(edit(lambda content: content["state_dict"].update({_first(content): huge})))


@pytest.mark.parametrize("section", [None, 5, "http://a/b.yaml", [1], {}, torch.zeros(2), {1: 2}])
def test_a_section_of_a_wrong_type_is_refused(section: object, edit: Edit):
    with pytest.raises(UnreadableCheckpoint, match=r"model\.ckpt: field `dubio"):
        file.read(edit(lambda content: content.update({KEY: section})))


def test_an_unknown_field_is_named(edit: Edit):
    with pytest.raises(UnreadableCheckpoint, match=r"field `dubio\.network\.hook`"):
        file.read(edit(lambda content: content[KEY]["network"].update(hook="x")))


def test_a_file_cut_short_anywhere_is_refused(model_file: Path):
    whole = model_file.read_bytes()
    for length in [*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1]:
        model_file.write_bytes(whole[:length])
        with pytest.raises(UnreadableCheckpoint):
            file.read(model_file)


def test_spoiled_bytes_never_raise_anything_else(model_file: Path):
    whole = model_file.read_bytes()
    chance = random.Random(0)
    refused = 0
    for _ in range(150):
        spoiled = bytearray(whole)
        for _ in range(chance.choice([1, 4, 64])):
            spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
        model_file.unlink()
        model_file.write_bytes(spoiled)
        try:
            file.read(model_file)
        except UnreadableCheckpoint:
            refused += 1
    assert refused > 20


def test_what_was_read_does_not_change_with_the_file(model_file: Path, saved: Path):
    read, other = file.read(model_file), file.read(saved)
    with model_file.open("r+b") as opened:
        opened.write(b"\xff" * model_file.stat().st_size)
    assert torch.equal(read.metadata.calibration["scores_N"], other.metadata.calibration["scores_N"])
    mine, theirs = (each.metadata.detector["parts"][1]["fitted"]["bank_NF"] for each in (read, other))
    assert torch.equal(mine, theirs)


def test_writing_that_cannot_be_read_back_leaves_the_old_file_and_no_other(model_file: Path):
    before = model_file.read_bytes()
    content = torch.load(model_file, weights_only=True)
    content[KEY]["classes"] = ["one"]
    with pytest.raises(UnreadableCheckpoint, match=rf"{model_file}: not written.*field `dubio\.classes`"):
        file.write(content, model_file)
    assert model_file.read_bytes() == before
    assert os.listdir(model_file.parent) == [model_file.name]


def test_writing_creates_the_folder(saved: Path, tmp_path: Path):
    destination = tmp_path / "runs" / "new" / "model.ckpt"
    file.write(file.read_content(saved), destination)
    assert file.read(destination).metadata.provenance == file.read(saved).metadata.provenance
    assert os.listdir(destination.parent) == ["model.ckpt"]


SAVE_FOR_EVER = """
import sys, itertools
import torch
from dubio.models.checkpoint import file
content = file.read_content(sys.argv[1])
for epoch in itertools.count():
    content["epoch"] = epoch
    content["padding"] = torch.zeros(500_000)
    file.write(content, sys.argv[2])
    print(epoch, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
def test_a_process_killed_while_saving_leaves_the_old_or_the_new_file(model_file: Path, tmp_path: Path):
    destination = tmp_path / "runs" / "model.ckpt"
    chance = random.Random(0)
    for _ in range(2):
        command = [sys.executable, "-c", SAVE_FOR_EVER, str(model_file), str(destination)]
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            written = int(child.stdout.readline())
            time.sleep(chance.uniform(0, 0.05))
        finally:
            child.kill()
            written = max([written, *map(int, child.stdout.read().split())])
            child.stdout.close()
            child.wait()
        file.read(destination)
        assert file.read_content(destination)["epoch"] in (written, written + 1)
