from __future__ import annotations

from pathlib import Path

import pytest

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.scale.readers import image_folder
from dubio.scale.readers.image_folder import ImageFolder
from dubio.scale.readers.rows import Reading

PIXELS = InputSpec(kind="image", shape=(3, 2, 2), mean=(0.0,) * 3, std=(1.0,) * 3, low=0, high=255)


def folder(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(name.encode())
    return path


def test_files_come_in_the_order_of_their_paths_in_batches_of_few_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = folder(tmp_path / "images", "b.png", "a/2.jpg", "a/1.webp", "a.tif", ".c.png", ".d/e.png", "notes.txt")
    (path / "gone.png").symlink_to("nowhere")
    (path / "a" / "again").symlink_to(path)
    names = ["a.tif", "a/1.webp", "a/2.jpg", "b.png", "gone.png"]
    source = ImageFolder(path, PIXELS, Reading())
    assert source.files == names
    monkeypatch.setattr(image_folder, "MOST_BYTES", 12)
    read = [batch for span in source.spans(4) for batch in source.read(span, 3)]
    assert [batch.first for batch in read] == [0, 2, 4]
    assert [name for batch in read for name in batch.ids["file"]] == names
    assert [held for batch in read for held in batch.inputs["bytes"]] == [*(name.encode() for name in names[:4]), None]
    assert read[2].errors == ["cannot be read: No such file or directory."]


def test_a_folder_has_another_stamp_once_a_file_has_changed(tmp_path: Path):
    path = folder(tmp_path / "images", "a.png", "b.png")
    before = ImageFolder(path, PIXELS, Reading()).stamp()
    assert ImageFolder(path, PIXELS, Reading()).stamp() == before
    (path / "a.png").write_bytes(b"another")
    assert ImageFolder(path, PIXELS, Reading()).stamp() != before


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path):
    path = folder(tmp_path / "images", "notes.txt")
    with pytest.raises(InvalidInput, match="Expected image files, but there are none"):
        ImageFolder(path, PIXELS, Reading())
    with pytest.raises(InvalidInput, match="whose rows are files, but got 'key'"):
        ImageFolder(path, PIXELS, Reading(ids=("key",)))
    numbers = InputSpec(kind="numbers", shape=(2,), mean=(0.0,) * 2, std=(1.0,) * 2, low=-1, high=1)
    with pytest.raises(InvalidInput, match="this model takes rows of numbers"):
        ImageFolder(path, numbers, Reading())
