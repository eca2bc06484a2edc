from __future__ import annotations

import os
from pathlib import Path

import pytest

from dubio.training.errors import UnreadableData
from dubio.training.readers.image_files import find


def lay(home: Path, *names: str) -> Path:
    """Files that are called so; what they hold does not matter here."""
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"x")
    return home


def found(home: Path, nested: bool = False) -> list[tuple[str, str, str | None]]:
    files = find(home, nested).files
    return [(file.path.relative_to(home).as_posix(), file.label, file.split) for file in files]


def test_a_folder_is_a_class_and_suffixes_may_be_in_capitals(tmp_path: Path):
    names = ["cat/1.png", "cat/2.JPG", "cat/3.jpeg", "dog/1.webp", "dog/2.WebP", "dog/3.jfif"]
    assert found(lay(tmp_path, *names)) == [(name, name[:3], None) for name in names]
    assert find(tmp_path, nested=False).describe_skipped() is None


def test_what_is_no_image_or_no_class_is_counted(tmp_path: Path):
    lay(tmp_path, "cat/1.png", "cat/notes.txt", "cat/more.TXT", "dog/1.png", "dog/.DS_Store", "dog/._1.png", "dog/list")
    lay(tmp_path, "cover.png", "labels.csv", ".git/config.png")
    assert [name for name, _, _ in found(tmp_path)] == ["cat/1.png", "dog/1.png"]
    assert find(tmp_path, nested=False).describe_skipped() == (
        "7 files are not used: 2 .txt, 2 hidden, 1 outside the classes' folders, 1 .csv, 1 without a suffix"
    )
    (tmp_path / "only" / "cat").mkdir(parents=True)
    lay(tmp_path / "only", "cat/1.png", "readme.md")
    assert find(tmp_path / "only", nested=False).describe_skipped() == "1 file is not used: 1 .md"


def test_images_that_are_not_read_are_no_small_matter(tmp_path: Path):
    lay(tmp_path, *(f"cat/{number}.png" for number in range(40)), *(f"cat/{number}.GIF" for number in range(30)))
    lay(tmp_path, *(f"dog/{number}.tiff" for number in range(50)))
    with pytest.raises(UnreadableData, match=r"80 of 120 images are of other formats \(50 \.tiff, 30 \.gif\), .*GIF"):
        find(tmp_path, nested=True)


def test_images_in_deeper_folders_are_refused_or_of_the_class(tmp_path: Path):
    lay(tmp_path, "cat/1.png", "cat/persian/2.png", "cat/persian/old/3.png", "dog/1.png", "dog/.cache/2.png")
    with pytest.raises(
        UnreadableData, match=r"2 of 3 lie in folders inside it, .*2\.png.*`data\.init_args\.nested: true`"
    ):
        find(tmp_path, nested=False)
    assert [name for name, label, _ in found(tmp_path, nested=True) if label == "cat"] == [
        "cat/1.png", "cat/persian/2.png", "cat/persian/old/3.png"
    ]  # fmt: skip


@pytest.mark.parametrize("validation", ["val", "valid", "Validation", "dev"])
def test_folders_called_like_splits_are_splits(tmp_path: Path, validation: str):
    lay(tmp_path, "train/cat/1.png", "train/dog/1.png", f"{validation}/cat/2.png", "TEST/dog/1.png", "notes.txt")
    lay(tmp_path, "train/list.txt")
    assert set(found(tmp_path)) == {
        ("train/cat/1.png", "cat", "train"),
        ("train/dog/1.png", "dog", "train"),
        (f"{validation}/cat/2.png", "cat", "validation"),
        ("TEST/dog/1.png", "dog", "test"),
    }
    assert find(tmp_path, nested=False).describe_skipped() == "2 files are not used: 2 .txt"


def test_a_class_may_be_called_like_a_split(tmp_path: Path):
    lay(tmp_path, "car/1.png", "train/1.png")
    assert [label for _, label, _ in found(tmp_path)] == ["car", "train"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/cat/1.png", "test/cat/1.png", "other/1.png"], "'test' looks like a split and 'other' does not"),
        (["train/1.png", "test/1.png"], "test: expected a folder for each class in the test split, but there is none"),
        (["val/cat/1.png", "dev/cat/1.png"], "one folder for the validation split, but 'dev' and 'val' both are it"),
        (["1.png"], "a folder for each class, with PNG, JPEG or WebP files, but there is none"),
        (["cat/1.png", "dog/1.txt"], "dog: expected images of class 'dog', but there is none in PNG, JPEG or WebP"),
    ],
)
def test_folders_that_are_neither_are_told(tmp_path: Path, names: list[str], message: str):
    with pytest.raises(UnreadableData, match=message):
        find(lay(tmp_path, *names), nested=False)


def test_links_are_followed_once_and_those_to_nowhere_are_told(tmp_path: Path):
    lay(tmp_path / "store", "1.png", "in/2.png")
    home = tmp_path / "pets"
    home.mkdir()
    (home / "cat").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "in" / "back").symlink_to(tmp_path / "store")
    lay(home, "dog/1.png")
    assert [name for name, _, _ in found(home, nested=True)] == ["cat/1.png", "cat/in/2.png", "dog/1.png"]
    (home / "dog" / "2.png").symlink_to("nowhere.png")
    with pytest.raises(UnreadableData, match=r"dog/2\.png: expected a file, but it is none, or a link to nowhere"):
        find(home, nested=True)
    (home / "dog" / "2.png").unlink()
    os.mkfifo(home / "dog" / "2.png")  # reading it would wait for ever
    with pytest.raises(UnreadableData, match=r"dog/2\.png: expected a file"):
        find(home, nested=True)
