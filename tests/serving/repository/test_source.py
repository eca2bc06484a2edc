from __future__ import annotations

import os
from pathlib import Path

import pytest

from dubio.serving.errors import InvalidModelSource
from dubio.serving.repository.source import ModelSource, is_name


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ("digits=runs/x/model.ckpt", "digits", "runs/x/model.ckpt"),
        ("runs/digits_mlp/model.ckpt", "digits_mlp", "runs/digits_mlp/model.ckpt"),
        ("runs/digits_mlp/best.ckpt", "best", "runs/digits_mlp/best.ckpt"),
        ("runs/a=b/model.v2.ckpt", "model.v2", "runs/a=b/model.v2.ckpt"),
        ("a=b=c.ckpt", "a", "b=c.ckpt"),
        ("a=c++/model.ckpt", "a", "c++/model.ckpt"),
        ("c++/x/model.ckpt", "x", "c++/x/model.ckpt"),
    ],
)
def test_names_and_paths(text: str, name: str, path: str) -> None:
    source = ModelSource.parse(text)
    assert source == ModelSource(name, Path(path))
    assert source.key == (name, "1")


def test_a_bare_model_ckpt_is_named_after_the_folder_it_lies_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert ModelSource.parse("model.ckpt").name == "here"


def test_checkpoints_with_a_plus_between_them_are_an_ensemble() -> None:
    source = ModelSource.parse("deep=runs/a+b/1.ckpt+runs/2.ckpt+3.ckpt")
    assert source.paths == (Path("runs/a+b/1.ckpt"), Path("runs/2.ckpt"), Path("3.ckpt"))
    with pytest.raises(InvalidModelSource, match=r"name it yourself: some-name=a.ckpt\+b.ckpt"):
        ModelSource.parse("a.ckpt+b.ckpt")
    with pytest.raises(InvalidModelSource, match=r"path in 'deep=a.ckpt\+', but it is empty"):
        ModelSource.parse("deep=a.ckpt+")


@pytest.mark.parametrize(
    "text", ["", "=x", "..=x", "a b=x", "a%2f=x", "runs/my run/model.ckpt", "name=", "é=x", "a\n=x", "stats=x"]
)
def test_names_that_cannot_be_routes(text: str) -> None:
    with pytest.raises(InvalidModelSource):
        ModelSource.parse(text)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0", "x" * 101, "stats", "a b", "a\n"])
def test_what_is_no_name(name: str) -> None:
    assert not is_name(name)


def test_other_bytes_have_another_stamp(tmp_path: Path) -> None:
    first, second = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    first.write_bytes(b"one")
    source = ModelSource("a", first, (second,))
    assert source.stamp() is None
    second.write_bytes(b"two")
    stamps = {source.stamp()}
    second.write_bytes(b"longer")
    stamps.add(source.stamp())
    os.utime(second, (1, 1))
    stamps.add(source.stamp())
    (tmp_path / "new").write_bytes(b"longer")
    os.utime(tmp_path / "new", (1, 1))
    os.replace(tmp_path / "new", second)
    stamps.add(source.stamp())
    assert len(stamps) == 4
    assert source.stamp() in stamps
    second.unlink()
    assert source.stamp() is None
