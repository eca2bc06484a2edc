from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from starlette.testclient import TestClient

from dubio.models import MLP, NetworkSpec, save
from dubio.models.inputs.spec import ImageFiles
from dubio.serving.app import create_app
from dubio.serving.settings import Settings
from dubio.serving.v1.decode import decode_request
from dubio.serving.wire.images import ImageCodec
from dubio.training import CalibrationSettings, ImageFolder, calibrate
from dubio.training.errors import DataUnavailable, DataWarning, InvalidSplit, TrainingError, UnreadableData
from dubio.training.splits.random_splits import SPLITS
from tests.pictures import encode, oriented, png

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
    read = ImageCodec(data.input).decode_all({0: {"b64": base64.b64encode(file).decode()}})[0]
    assert read.pixels_CHW.tobytes() == PIXELS[1].transpose(2, 0, 1).tobytes()
    assert data.input.files == ImageFiles(resize=None)


def test_the_service_resizes_a_file_as_training_did_and_gives_the_same_answer(tmp_path: Path):
    """Photographs of several sizes, some of which say that the camera was turned: the files themselves are sent."""
    home, generator = tmp_path / "pets", np.random.default_rng(1)
    files = []
    for number in range(600):
        pixels = generator.integers(0, 256, (*generator.integers(4, 30, 2), 3), dtype=np.uint8)
        file = home / ("cat" if number % 2 else "dog") / f"{number:03}.{('png', 'jpg', 'webp')[number % 3]}"
        kind = ("PNG", "JPEG", "WEBP")[number % 3]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(oriented(Image.fromarray(pixels), int(generator.integers(1, 9)), kind))
        files.append(file)
    data = ImageFolder(str(home), size=(8, 7))
    with pytest.warns(DataWarning, match=r"of 600 images are stretched: their aspect ratio is not that of `size`"):
        data.setup()
    assert data.input.files == ImageFiles(resize="bilinear")
    arguments = {"in_features": 3 * 8 * 7, "widths": [8], "num_classes": 2, "rates": [0.5]}
    spec = NetworkSpec(class_path="dubio.models.MLP", init_args=arguments)
    trained = calibrate(MLP(**arguments).eval(), spec, data, CalibrationSettings(num_samples=8))
    save(trained, None, tmp_path / "model.ckpt")

    sent = {"instances": [{"b64": base64.b64encode(file.read_bytes()).decode()} for file in files[:30]]}
    inputs = decode_request(json.dumps(sent).encode(), spec=data.input, committee=8, max_rows=99).inputs
    read = {image.tobytes() for name in SPLITS for image in data.splits[name].x}
    assert all(image.astype(np.uint8).tobytes() in read for image in inputs)
    expected = trained.predict(inputs)
    with TestClient(
        create_app(Settings(models=(f"pets={tmp_path}/model.ckpt",), torch_threads=1)).asgi, "http://localhost"
    ) as client:
        answer = client.post("/v1/predict", json=sent).json()["predictions"]
        refused = client.post("/v1/predict", json={**sent, "parameters": {"resize": False}})
        card = client.get("/v1/models/pets").json()
    for row, one in enumerate(answer):
        np.testing.assert_allclose(one["mc"]["mean"], expected.mc_mean[row], atol=1e-6)
        upright = ImageOps.exif_transpose(Image.open(files[row]))
        assert (one["image"]["width"], one["image"]["height"]) == upright.size
        assert one["image"]["resized"] is (upright.size != (7, 8))
    assert refused.status_code == 422
    assert "to be 7 pixels wide and 8 high" in refused.json()["detail"]
    assert card["input"]["files"] == {"resize": "bilinear"}


def test_images_are_brought_to_one_size_and_to_grey(tmp_path: Path):
    home = folder(tmp_path / "pets")
    Image.fromarray(PIXELS[0]).resize((50, 40)).save(home / "cat" / "000.png")
    with pytest.raises(UnreadableData, match=r"pixels, as .* has, but it has .*; set `data\.init_args\.size`"):
        ImageFolder(str(home)).setup()
    data = ImageFolder(str(home), size=(4, 3), channels=1)
    with pytest.warns(DataWarning, match=r"pets: 1 of 120 images are stretched"):
        data.setup()
    assert data.input.shape == (1, 4, 3)
    expected = np.asarray(Image.fromarray(PIXELS[1]).convert("L").resize((3, 4), Image.Resampling.BILINEAR))
    assert any(np.array_equal(image[0], expected) for name in SPLITS for image in data.splits[name].x)
    (home / "cat" / "000.png").unlink()
    assert ImageFolder(str(home), size=6).input.shape == (3, 6, 6)


def test_jpeg_and_webp_files_are_read(tmp_path: Path):
    home = folder(tmp_path / "pets")
    for name, number, kind in (("000.JPG", 0, "JPEG"), ("002.webp", 2, "WEBP")):
        file = encode(Image.fromarray(PIXELS[number]), kind)
        (home / "cat" / f"{number:03}.png").unlink()
        (home / "cat" / name).write_bytes(file)
        expected = np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).transpose(2, 0, 1)
        data = ImageFolder(str(home))
        assert any(np.array_equal(image, expected) for name in SPLITS for image in data.splits[name].x)


def test_every_file_is_used_or_counted(tmp_path: Path):
    home = folder(tmp_path / "pets")
    for number in range(40, 120):
        file = home / ("cat" if number % 2 == 0 else "dog") / f"{number:03}.png"
        file.write_bytes(encode(Image.fromarray(PIXELS[number]), "WEBP"))
        file.rename(file.with_suffix(".webp"))
    (home / "cat" / "list.txt").write_text("x")
    data = ImageFolder(str(home))
    with pytest.warns(DataWarning, match=r"pets: 1 file is not used: 1 \.txt\.$"):
        data.setup()
    assert sum(len(data.splits[name].x) for name in SPLITS) == 120


def test_images_in_deeper_folders_are_used_if_that_is_said(tmp_path: Path):
    home = folder(tmp_path / "pets")
    (home / "cat" / "persian").mkdir()
    (home / "cat" / "000.png").rename(home / "cat" / "persian" / "000.png")
    with pytest.raises(UnreadableData, match=r"1 of 60 lie in folders inside it"):
        ImageFolder(str(home)).setup()
    data = ImageFolder(str(home), nested=True)
    assert sum(len(data.splits[name].x) for name in SPLITS) == 120


def test_a_folder_may_be_divided_already(tmp_path: Path):
    for part, name in enumerate(SPLITS):
        folder(tmp_path / "pets" / name, count=20 + 2 * part)
    data = ImageFolder(str(tmp_path / "pets"))
    assert [len(data.splits[name].x) for name in SPLITS] == [20, 22, 24, 26, 28]
    (tmp_path / "pets" / "validation").rename(tmp_path / "pets" / "val")
    assert len(ImageFolder(str(tmp_path / "pets")).splits["validation"].x) == 22
    for file in (tmp_path / "pets" / "test" / "dog").iterdir():
        file.rename(file.with_suffix(".txt"))
    with pytest.raises(UnreadableData, match=r"test/dog: expected .* of class 'dog', but there is none"):
        ImageFolder(str(tmp_path / "pets")).setup()


def test_splits_without_a_folder_are_taken_from_train(tmp_path: Path):
    for name, count in (("train", 100), ("val", 20), ("test", 30)):
        folder(tmp_path / "pets" / name, count)
    data = ImageFolder(str(tmp_path / "pets"), train=0.5, select=0.1, calibration=0.2, validation=0.1, test=0.1)
    # 100 images at 5 : 1 : 2; the images of the other folders stay where they are.
    with pytest.warns(DataWarning, match=r"from the 100 images in train: select \(13\), calibration \(25\)\.$"):
        data.setup()
    assert {name: len(data.splits[name].x) for name in SPLITS} == {
        "train": 62, "validation": 20, "select": 13, "calibration": 25, "test": 30
    }  # fmt: skip
    assert data.classes == ("cat", "dog")
    expected = {(number % 2, PIXELS[number].transpose(2, 0, 1).tobytes()) for number in range(100)}
    assert expected == {
        (label, image.tobytes())
        for name in ("train", "select", "calibration")
        for image, label in zip(data.splits[name].x, data.splits[name].labels.tolist(), strict=True)
    }
    (tmp_path / "pets" / "train").rename(tmp_path / "pets" / "calibration")
    with pytest.raises(UnreadableData, match="expected a folder for the train split, but there is none"):
        ImageFolder(str(tmp_path / "pets")).setup()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no image", r"Expected .*cat/000\.png to be a PNG, JPEG or WebP file, but its first bytes are 6e 6f 20"),
        (b"\x89PNG\r\n\x1a\n cut", r"Expected .*cat/000\.png to be a whole PNG, JPEG or WebP file"),
        (Image.fromarray(np.zeros((6, 5), np.uint16)), "at most 8 bits a channel"),
        # In colour, Pillow would drop the lower eight bits and not say so.
        (png([bytes(30)] * 6, colour_type=2, depth=16, size=(5, 6)), "at most 8 bits a channel.* RGB with 16 bits"),
        (Image.new("RGBA", (5, 6), (1, 2, 3, 100)), "some of its pixels are transparent"),
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
    with pytest.raises(UnreadableData, match="of class 'eel', but there is none in PNG, JPEG or WebP; add some"):
        ImageFolder(str(home)).setup()
    Image.fromarray(PIXELS[0]).save(home / "eel" / "1.png")
    with pytest.raises(InvalidSplit, match="'eel' has 1"):
        ImageFolder(str(home)).setup()
    with pytest.raises(TrainingError, match=r"`data\.init_args\.size` to be positive"):
        ImageFolder(str(home), size=0)


def test_a_checkpoint_says_how_files_are_read_whatever_is_set_now(tmp_path: Path):
    home = folder(tmp_path / "pets")
    fit = ImageFolder(str(home), size=6, channels=1)
    other = ImageFolder(str(home))
    other.follow(fit.record, "test")
    assert other.splits["test"].x.tobytes() == fit.splits["test"].x.tobytes()
    assert other.input == fit.input


def test_predictions_take_files_of_no_class(tmp_path: Path):
    fit = ImageFolder(str(folder(tmp_path / "pets")))
    (tmp_path / "new" / "in").mkdir(parents=True)
    for number, name in enumerate(("b.png", "a.webp", "in/c.png")):
        kind = "WEBP" if name.endswith("webp") else "PNG"
        (tmp_path / "new" / name).write_bytes(encode(Image.fromarray(PIXELS[number]), kind, lossless=True))
    new = ImageFolder(str(tmp_path / "new"))
    new.follow(fit.record, "predict")
    assert new.load().ids == {"file": ["a.webp", "b.png", "in/c.png"]}
    np.testing.assert_array_equal(new.load().whole().x, PIXELS[[1, 0, 2]].transpose(0, 3, 1, 2))


def test_a_folder_may_have_the_test_split_alone_for_a_checkpoint(tmp_path: Path):
    fit = ImageFolder(str(folder(tmp_path / "pets")))
    generator = np.random.default_rng(3)
    for number in range(10):
        file = tmp_path / "new" / "test" / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(file)
    new = ImageFolder(str(tmp_path / "new"))
    new.follow(fit.record, "test")
    assert len(new.splits["test"].x) == 10
