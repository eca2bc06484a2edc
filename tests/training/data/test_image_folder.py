from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dubio.serving.v1.images import ImageCodec
from dubio.training import ImageFolder
from dubio.training.data.splits import SPLITS
from dubio.training.errors import DataUnavailable, InvalidSplit, TrainingError, UnreadableData

PIXELS = np.random.default_rng(0).integers(0, 256, (120, 6, 5, 3), dtype=np.uint8)


def folder(home: Path, count: int = 120) -> Path:
    """Cats and dogs of 6 x 5 pixels in colour, the even ones cats."""
    for number in range(count):
        place = home / ("cat" if number % 2 == 0 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[number]).save(place / f"{number:03}.png")
    return home


def test_pixels_are_those_of_the_files(tmp_path: Path):
    data = ImageFolder(str(folder(tmp_path / "pets")))
    assert data.classes == ("cat", "dog")
    assert (data.input.kind, data.input.shape) == ("image", (3, 6, 5))
    assert (data.input.low, data.input.high) == (data.splits["train"].x.min(), data.splits["train"].x.max())
    everything = {
        (label, image.tobytes())
        for name in SPLITS
        for image, label in zip(data.splits[name].x, data.splits[name].labels.tolist(), strict=True)
    }
    assert everything == {(number % 2, PIXELS[number].transpose(2, 0, 1).tobytes()) for number in range(120)}


def test_the_service_reads_a_file_as_training_did(tmp_path: Path):
    data = ImageFolder(str(folder(tmp_path / "pets")))
    file = (tmp_path / "pets" / "dog" / "001.png").read_bytes()
    read = ImageCodec(data.input).decode({"b64": base64.b64encode(file).decode()}, where="it")
    assert read.reshape(3, 6, 5).tobytes() == PIXELS[1].transpose(2, 0, 1).tobytes()


def test_images_are_brought_to_one_size_and_to_grey(tmp_path: Path):
    home = folder(tmp_path / "pets")
    Image.fromarray(PIXELS[0]).resize((50, 40)).save(home / "cat" / "000.png")
    with pytest.raises(UnreadableData, match=r"pixels, as .* has, but it has .*; set `data\.init_args\.size`"):
        ImageFolder(str(home)).setup()
    data = ImageFolder(str(home), size=(4, 3), channels=1)
    assert data.input.shape == (1, 4, 3)
    expected = np.asarray(Image.fromarray(PIXELS[1]).convert("L").resize((3, 4), Image.Resampling.BILINEAR))
    assert any(np.array_equal(image[0], expected) for name in SPLITS for image in data.splits[name].x)
    assert ImageFolder(str(home), size=4).input.shape == (3, 4, 4)


def test_jpeg_files_are_read(tmp_path: Path):
    home = folder(tmp_path / "pets")
    file = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(file, "JPEG")
    (home / "cat" / "000.png").unlink()
    (home / "cat" / "000.JPG").write_bytes(file.getvalue())
    expected = np.asarray(Image.open(file)).transpose(2, 0, 1)
    data = ImageFolder(str(home))
    assert any(np.array_equal(image, expected) for name in SPLITS for image in data.splits[name].x)


def test_a_folder_may_be_divided_already(tmp_path: Path):
    for part, name in enumerate(SPLITS):
        folder(tmp_path / "pets" / name, count=20 + 2 * part)
    data = ImageFolder(str(tmp_path / "pets"))
    assert [len(data.splits[name].x) for name in SPLITS] == [20, 22, 24, 26, 28]
    for file in (tmp_path / "pets" / "test" / "dog").iterdir():
        file.rename(file.with_suffix(".txt"))
    with pytest.raises(UnreadableData, match=r"test/dog: expected .* of class 'dog', but there is none"):
        ImageFolder(str(tmp_path / "pets")).setup()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no image", r"cat/000\.png: expected a PNG or JPEG file, but it cannot be read"),
        (b"\x89PNG\r\n\x1a\n cut", r"cat/000\.png: expected a PNG or JPEG file"),
        (Image.fromarray(np.zeros((6, 5), np.uint16)), "at most 8 bits a channel"),
        (Image.new("RGBA", (5, 6), (1, 2, 3, 100)), "no transparent pixels"),
    ],
)
def test_an_image_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | Image.Image, message: str):
    home = folder(tmp_path / "pets")
    if isinstance(content, bytes):
        (home / "cat" / "000.png").write_bytes(content)
    else:
        content.save(home / "cat" / "000.png")
    with pytest.raises(UnreadableData, match=message) as caught:
        ImageFolder(str(home)).setup()
    assert "\n" not in str(caught.value)


def test_folders_that_make_no_data_are_told(tmp_path: Path):
    with pytest.raises(DataUnavailable, match="no such folder"):
        ImageFolder(str(tmp_path / "nothing")).setup()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableData, match="a folder for each class"):
        ImageFolder(str(tmp_path / "empty")).setup()
    home = folder(tmp_path / "pets")
    (home / "eel").mkdir()
    with pytest.raises(UnreadableData, match="of class 'eel', but there is none; add some, or remove the folder"):
        ImageFolder(str(home)).setup()
    Image.fromarray(PIXELS[0]).save(home / "eel" / "1.png")
    with pytest.raises(InvalidSplit, match="'eel' has 1"):
        ImageFolder(str(home)).setup()
    with pytest.raises(TrainingError, match=r"`data\.init_args\.size` to be positive"):
        ImageFolder(str(home), size=0)
