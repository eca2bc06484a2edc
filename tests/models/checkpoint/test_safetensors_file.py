from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dubio.models.checkpoint import file, safetensors_file
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


def test_what_torch_wrote_is_none_of_them(tmp_path: Path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert not safetensors_file.is_one(tmp_path / "a.safetensors")
    assert torch.equal(file.read_content(tmp_path / "a.safetensors")["a"], torch.ones(2))
    assert not safetensors_file.is_one(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    assert not safetensors_file.is_one(tmp_path / "pipe")
