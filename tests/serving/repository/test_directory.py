from __future__ import annotations

import os
from pathlib import Path

import pytest

from dubio.serving.errors import InvalidModelSource
from dubio.serving.repository.directory import Listing, ModelDirectory


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_versions_are_numbers_and_come_in_their_order(tmp_path: Path) -> None:
    put(tmp_path, *(f"digits/{version}/model.ckpt" for version in ("10", "9", "1", "01", "0", "v2", "2.0", "-3", "२")))
    sources = ModelDirectory(tmp_path).of("digits").sources
    assert [source.version for source in sources] == ["1", "9", "10"]
    assert sources[2].path == tmp_path / "digits" / "10" / "model.ckpt"
    assert sources[2].root == tmp_path


def test_models_come_by_name_and_strange_things_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "b/1/model.ckpt", "a/2/model.ckpt", "a/1/model.ckpt", "README", "empty/1/notes.txt", "file/1")
    put(tmp_path, "stats/1/model.ckpt", "my model/1/model.ckpt", ".hidden/1/model.ckpt", "lost+found/1/model.ckpt")
    put(tmp_path, "c/1/.model.ckpt.0a.tmp", "c/1/model.ckpt.part", "c/2/last.ckpt")
    sources = ModelDirectory(tmp_path).scan().sources
    assert [source.key for source in sources] == [("a", "1"), ("a", "2"), ("b", "1")]


def test_several_checkpoints_in_a_version_are_an_ensemble(tmp_path: Path) -> None:
    put(tmp_path, "deep/3/model-b.ckpt", "deep/3/model-a.ckpt", "deep/3/best.ckpt")
    [source] = ModelDirectory(tmp_path).scan().sources
    assert [path.name for path in source.paths] == ["model-a.ckpt", "model-b.ckpt"]


@pytest.mark.parametrize("name", ["..", ".", "", "a/../a", "../a", "/", "a\0", ".git", "stats", "a/1"])
def test_names_that_climb_find_nothing(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a/1/model.ckpt", ".git/1/model.ckpt", "1/model.ckpt")
    put(tmp_path.parent, "1/model.ckpt")
    assert ModelDirectory(tmp_path).of(name) == Listing()
    assert ModelDirectory(tmp_path).of("missing") == Listing()


def test_a_root_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "file")
    for root in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(InvalidModelSource, match="to be a directory"):
            ModelDirectory(root)


def test_what_cannot_be_looked_into_is_skipped_by_name(tmp_path: Path) -> None:
    put(tmp_path, "good/1/model.ckpt", "good/3/model.ckpt", "my model/1/model.ckpt", "README.md", ".git/1/model.ckpt")
    put(tmp_path, os.fsdecode(b"caf\xe9/1/model.ckpt"))
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("nothing")
    (tmp_path / "good" / "2").symlink_to("2")
    listing = ModelDirectory(tmp_path).scan()
    assert [source.key for source in listing.sources] == [("good", "1"), ("good", "3")]
    skipped = {(name.encode("utf-8", "replace"), version) for name, version in listing.skipped}
    models = {(b"circle", None), (b"nowhere", None), (b"my model", None), (b"caf?", None)}
    assert skipped == {(b"good", "2")} | models
    assert [listing.skips(key) for key in [("good", "1"), ("good", "2"), ("circle", "7")]] == [False, True, True]
    [of_one] = ModelDirectory(tmp_path).of("good").complaints()
    assert of_one == "Skipped 'good/2' in the model repository: Too many levels of symbolic links."
    assert any("a model's name has 1 to 100 of the characters" in line for line in listing.complaints())
    assert all(line.isprintable() for line in listing.complaints())


def test_a_folder_that_holds_nothing_to_serve_is_told_with_the_cure(tmp_path: Path) -> None:
    put(tmp_path, "good/1/model.ckpt", "flat/model.ckpt", "words/v1/model.ckpt", "other/2/last.ckpt", "README.md")
    put(tmp_path, "copied/1/model.ckpt.part", "copied/1/.model.ckpt", ".git/config")  # what is not there yet
    listing = ModelDirectory(tmp_path).scan()
    assert [source.key for source in listing.sources] == [("good", "1")]
    assert listing.skipped == {}  # what was served from there is gone, and is unloaded
    number = "it has no folder that is named by the number of a version; put the checkpoint into"
    assert listing.complaints() == [
        f"Skipped 'flat' in the model repository: {number} flat/1/model.ckpt, and later ones into flat/2 and so on.",
        "Skipped 'other/2' in the model repository: no file in it is named model*.ckpt; rename 'last.ckpt' to "
        "'model.ckpt'.",
        f"Skipped 'words' in the model repository: {number} words/1/model.ckpt, and later ones into words/2 and so on.",
    ]


def test_shadows_are_no_versions_and_the_highest_is_found(tmp_path: Path) -> None:
    put(
        tmp_path, *(f"digits/{folder}/model.ckpt" for folder in ("1", "2.shadow", "10.shadow", "02.shadow", "x.shadow"))
    )
    put(tmp_path, "letters/3.shadow/model-b.ckpt", "letters/3.shadow/model-a.ckpt", "empty/1.shadow/notes.txt")
    directory = ModelDirectory(tmp_path)
    assert [source.key for source in directory.scan().sources] == [("digits", "1")]
    shadows = directory.shadows()
    assert {name: source.version for name, source in shadows.items()} == {"digits": "10", "letters": "3"}
    assert [path.name for path in shadows["letters"].paths] == ["model-a.ckpt", "model-b.ckpt"]
    assert shadows["digits"].path == tmp_path / "digits" / "10.shadow" / "model.ckpt"
