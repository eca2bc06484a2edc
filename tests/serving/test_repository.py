from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import UnreadableCheckpoint
from serving.errors import InvalidModelSource, NotReady, UnknownModel, UnusableDevice
from serving.repository import ModelRepository, ModelSource


def repository(*sources: str, device: str = "cpu") -> ModelRepository:
    return ModelRepository([ModelSource.parse(text) for text in sources], device=device, trusted=())


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ("digits=runs/x/model.ckpt", "digits", "runs/x/model.ckpt"),
        ("runs/digits_mlp/model.ckpt", "digits_mlp", "runs/digits_mlp/model.ckpt"),
        ("runs/digits_mlp/best.ckpt", "best", "runs/digits_mlp/best.ckpt"),
        ("runs/a=b/model.v2.ckpt", "model.v2", "runs/a=b/model.v2.ckpt"),
        ("a=b=c.ckpt", "a", "b=c.ckpt"),
    ],
)
def test_names_and_paths(text: str, name: str, path: str) -> None:
    assert ModelSource.parse(text) == ModelSource(name, Path(path))


def test_a_bare_model_ckpt_is_named_after_the_folder_it_lies_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert ModelSource.parse("model.ckpt").name == "here"


@pytest.mark.parametrize(
    "text", ["", "=x", "..=x", "a b=x", "a%2f=x", "runs/my run/model.ckpt", "name=", "é=x", "a\n=x"]
)
def test_names_that_cannot_be_routes(text: str) -> None:
    with pytest.raises(InvalidModelSource):
        ModelSource.parse(text)


def test_names_must_differ() -> None:
    with pytest.raises(InvalidModelSource, match=r"'a' names both x.ckpt and y.ckpt; .* a-2=y.ckpt"):
        repository("a=x.ckpt", "a=y.ckpt")


def test_it_is_ready_once_everything_is_loaded(checkpoint: Path, numbers_checkpoint: Path) -> None:
    models = repository(f"bars={checkpoint}", f"row={numbers_checkpoint}")
    assert not models.ready
    with pytest.raises(NotReady, match="0 of 2 models are loaded"):
        models.get()
    models.load()
    assert models.ready
    assert models.get().name == "bars"
    assert [model.name for model in models] == ["bars", "row"]
    with pytest.raises(UnknownModel, match="did you mean 'row'"):
        models.get("rov")
    with pytest.raises(UnknownModel, match="loaded: bars, row"):
        models.get("../../etc")


def test_nothing_is_not_ready() -> None:
    models = repository()
    models.load()
    assert not models.ready
    with pytest.raises(NotReady, match="at least one checkpoint"):
        models.get("any")


def test_one_bad_file_keeps_it_unready(checkpoint: Path, tmp_path: Path) -> None:
    models = repository(f"bars={checkpoint}", f"gone={tmp_path / 'gone.ckpt'}")
    with pytest.raises(UnreadableCheckpoint, match="no such file"):
        models.load()
    assert not models.ready


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(checkpoint: Path, device: str) -> None:
    with pytest.raises(UnusableDevice, match=f"but got '{device}'"):
        repository(f"bars={checkpoint}", device=device).load()
