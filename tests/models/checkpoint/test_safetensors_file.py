from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dubio.models.checkpoint import archive, file, safetensors_file
from dubio.models.errors import UnreadableCheckpoint


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(3, 4, generator=generator)
    return {"a.weight": wide, "a.bias": wide[0].half(), "steps": torch.arange(3)}


def test_the_tensors_are_read_whatever_the_file_is_called(weights: dict[str, torch.Tensor], tmp_path: Path):
    for name in ("model.safetensors", "model.bin"):
        save_file(weights, tmp_path / name)
        found = file.read_content(tmp_path / name)
        assert list(found) == sorted(weights)
        assert all(torch.equal(found[name], weights[name]) for name in weights)
        assert all(found[name].dtype == weights[name].dtype for name in weights)


def test_what_is_read_does_not_change_with_the_file(weights: dict[str, torch.Tensor], tmp_path: Path):
    save_file(weights, tmp_path / "model.safetensors")
    found = file.read_content(tmp_path / "model.safetensors")
    with (tmp_path / "model.safetensors").open("r+b") as opened:
        opened.seek(-16, os.SEEK_END)
        opened.write(b"\xff" * 16)
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("cut", [9, 30, -1])
def test_a_damaged_file_is_refused(cut: int, weights: dict[str, torch.Tensor], tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_file(weights, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UnreadableCheckpoint, match=r"model\.safetensors.*safetensors wrote, or it is damaged"):
        file.read_content(path)


def test_a_file_larger_than_half_of_the_memory_is_refused_unread(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save_file(weights, tmp_path / "model.safetensors")
    size = (tmp_path / "model.safetensors").stat().st_size
    monkeypatch.setattr(archive, "largest", lambda: size)
    assert set(safetensors_file.read(tmp_path / "model.safetensors")) == set(weights)
    monkeypatch.setattr(archive, "largest", lambda: size - 1)
    with pytest.raises(UnreadableCheckpoint, match=f"has {size} bytes, but at most .* is read, {size - 1} bytes"):
        safetensors_file.read(tmp_path / "model.safetensors")


def test_without_the_library_the_cure_is_told(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save_file(weights, tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UnreadableCheckpoint, match="run `pip install safetensors`"):
        safetensors_file.read(tmp_path / "model.safetensors")


def test_what_torch_wrote_is_none_of_them(tmp_path: Path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert not safetensors_file.is_one(tmp_path / "a.safetensors")
    assert torch.equal(file.read_content(tmp_path / "a.safetensors")["a"], torch.ones(2))
    assert not safetensors_file.is_one(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    assert not safetensors_file.is_one(tmp_path / "pipe")
