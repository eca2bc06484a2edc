"""Image files in requests; what is read of a file is tested with `dubio.models.inputs.image`."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from PIL import Image

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.models.inputs.image import ImageReader
from dubio.models.inputs.spec import ImageFiles
from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.v1.decode import DecodedRequest, decode_request
from tests.pictures import encode, oriented

HEIGHT, WIDTH = 5, 7


def spec(kind: str, shape: tuple[int, ...], low: float, high: float, files: ImageFiles | None = None) -> InputSpec:
    """What a model takes whose raw values went from `low` to `high` in training."""
    scale = {"mean": (0.0,) * shape[0], "std": (1.0,) * shape[0]}
    return InputSpec(kind=kind, shape=shape, low=low, high=high, files=files, **scale)


GREY = spec("image", (1, HEIGHT, WIDTH), 0.0, 255.0)
COLOUR = spec("image", (3, HEIGHT, WIDTH), 0.0, 250.0)
RESIZED = spec("image", (3, HEIGHT, WIDTH), 0.0, 250.0, ImageFiles(resize="bilinear"))
AS_THEY_WERE = spec("image", (3, HEIGHT, WIDTH), 0.0, 250.0, ImageFiles(resize=None))
generator = np.random.default_rng(0)
GREY_HW = generator.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
COLOUR_HWC = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
LARGE_HWC = generator.integers(0, 256, (31, 20, 3), dtype=np.uint8)


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def decode(*instances: object, model: InputSpec = GREY, **parameters: object) -> DecodedRequest:
    body = json.dumps({"instances": instances, "parameters": parameters}).encode()
    return decode_request(body, spec=model, committee=8, max_rows=50)


def ask(*instances: object, model: InputSpec = GREY) -> np.ndarray:
    return decode(*instances, model=model).inputs


GREY_PNG = encode(Image.fromarray(GREY_HW))


@pytest.mark.parametrize("form", [b64, url, lambda data: {"b64": url(data)}], ids=["b64", "data URL", "both"])
def test_a_file_is_its_pixels(form) -> None:
    inputs = ask(form(GREY_PNG))
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs, GREY_HW[None, None])
    colour = ask(form(encode(Image.fromarray(COLOUR_HWC))), model=COLOUR)
    np.testing.assert_array_equal(colour, COLOUR_HWC.transpose(2, 0, 1)[None])


def test_a_file_is_what_it_holds_whatever_its_url_says() -> None:
    for kind in ("JPEG", "WEBP"):
        file = encode(Image.fromarray(GREY_HW).convert("RGB"), kind)
        np.testing.assert_array_equal(ask(url(file, kind.lower())), ask(b64(file)))
        np.testing.assert_array_equal(ask(url(file, "png")), ask(b64(file)))


@pytest.mark.parametrize("value", [1e39, -1e39])
def test_beside_a_file_numbers_beyond_float32_are_refused_too(value: float) -> None:
    numbers = np.zeros(HEIGHT * WIDTH).tolist()
    numbers[3] = value
    with pytest.raises(InvalidRequest, match=r"row 1 holds -?1e\+39 at position 3"):
        ask(b64(GREY_PNG), numbers)


def test_files_and_numbers_in_one_request_keep_their_order() -> None:
    numbers = (GREY_HW / 2).tolist()
    pixels = ask(b64(GREY_PNG), numbers, url(GREY_PNG), np.ravel(numbers).tolist(), [numbers])
    for row, expected in enumerate([GREY_HW, GREY_HW / 2, GREY_HW, GREY_HW / 2, GREY_HW / 2]):
        np.testing.assert_array_equal(pixels[row, 0], np.float32(expected))


@pytest.mark.parametrize("file", [encode(Image.fromarray(LARGE_HWC)), oriented(Image.fromarray(LARGE_HWC), 6, "JPEG")])
def test_a_file_of_any_size_is_resized_as_the_training_images_were(file: bytes) -> None:
    small = encode(Image.fromarray(COLOUR_HWC))
    decoded = decode(b64(file), b64(small), COLOUR_HWC.transpose(2, 0, 1).tolist(), model=RESIZED)
    trained = ImageReader(3, (HEIGHT, WIDTH), resize=True).read(file, "it")
    assert decoded.inputs[0].tobytes() == trained.pixels_CHW.astype(np.float32).tobytes()
    np.testing.assert_array_equal(decoded.inputs[1], decoded.inputs[2])
    assert decoded.images == [
        trained.describe(),
        {"height": HEIGHT, "width": WIDTH, "oriented": False, "resized": False},
        None,
    ]
    assert trained.resized


def test_a_file_of_another_size_is_refused_if_the_caller_says_so_or_training_did_not_resize() -> None:
    large, small = b64(encode(Image.fromarray(LARGE_HWC))), b64(encode(Image.fromarray(COLOUR_HWC)))
    complaint = r"instances\[1\] to be 7 pixels wide and 5 high, but it is 20 wide and 31 high; resize it"
    with pytest.raises(InvalidInput, match=complaint):
        decode(small, large, model=RESIZED, resize=False)
    for model in (AS_THEY_WERE, COLOUR):
        with pytest.raises(InvalidInput, match=complaint):
            decode(small, large, model=model, resize=True)
    with pytest.raises(InvalidRequest, match=r"`parameters\.resize` to be a valid boolean, but got the string 'no'"):
        decode(small, model=RESIZED, resize="no")


REFUSED = {
    "another size": (b64(encode(Image.new("L", (HEIGHT, WIDTH)))), "to be 7 pixels wide and 5 high, but it is 5 wide"),
    "another format": (
        b64(encode(Image.fromarray(GREY_HW), "BMP")),
        "to be a PNG, JPEG or WebP file, but it is a BMP file; convert it",
    ),
    "nothing": ({"b64": ""}, "to be a PNG, JPEG or WebP file, but it is empty; give the bytes of the file"),
    "two bytes missing": (b64(GREY_PNG[:-20]), "it cannot be decoded"),
    "no base64": ({"b64": "%%%%"}, "to hold base64, but it cannot be read"),
    "half a letter": ({"b64": "iVBORw0KGgo"}, "to hold base64, but it cannot be read"),
    "letters beyond ASCII": ({"b64": "é" * 8}, "to hold base64, but it cannot be read"),
    "no text": ({"b64": 7}, "but got another object"),
    "more keys": ({"b64": "", "url": "http://localhost/"}, "but got another object"),
    "another key": ({"url": "http://localhost/"}, "but got another object"),
    "no base64 in the URL": ("data:image/png,abc", "to be a data URL like"),
    "no comma in the URL": ("data:image/png;base64", "to be a data URL like"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_what_the_model_takes_is_refused(case: str) -> None:
    instance, complaint = REFUSED[case]
    with pytest.raises((InvalidRequest, InvalidInput), match=rf"instances\[1\].*{complaint}"):
        ask(b64(GREY_PNG), instance)


def test_small_files_of_large_images_are_bounded_before_any_is_decoded() -> None:
    large = spec("image", (3, 2048, 2048), 0.0, 255.0)
    blank = b64(encode(Image.new("1", (2048, 2048)), "PNG"))
    assert ask(blank, model=large).shape == (1, 3, 2048, 2048)
    with pytest.raises(TooManyRows, match=r"at most 1 image files .* but got 2; split"):
        ask(blank, blank, model=large)


def test_pixels_that_are_resized_away_are_bounded_for_the_request_too() -> None:
    # Blank, 4096 x 4096 pixels are a few kilobytes; five of them are more than the bound.
    blank = b64(encode(Image.new("1", (2**12, 2**12))))
    assert decode(*[blank] * 4, model=RESIZED).inputs.shape == (4, 3, HEIGHT, WIDTH)
    with pytest.raises(TooManyRows, match=r"at most 67108864 pixels in all, but those up to instances\[4\] have 8388"):
        decode(*[blank] * 6, model=RESIZED)


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        (spec("image", (1, HEIGHT, WIDTH), 0.0, 16.0), "trained on values from 0 to 16, so send such numbers"),
        (spec("image", (1, HEIGHT, WIDTH), 0.0, 1.0), "trained on values from 0 to 1"),
        (spec("image", (1, HEIGHT, WIDTH), -128.0, 127.0), "trained on values from -128 to 127"),
        (spec("image", (1, HEIGHT, WIDTH), 0.0, 65535.0), "trained on values from 0 to 65535"),
        (spec("image", (2, HEIGHT, WIDTH), 0.0, 255.0), "this model takes images of 2 channels"),
        (spec("numbers", (35,), 0.0, 255.0), "this model takes rows of numbers"),
    ],
)
def test_a_model_that_was_not_trained_on_bytes_of_image_files_takes_none(model: InputSpec, rule: str) -> None:
    for instance in (b64(GREY_PNG), url(GREY_PNG)):
        with pytest.raises(InvalidRequest, match=rf"instances\[0\] to be numbers, but got an image file.*{rule}"):
            ask(instance, model=model)


def test_a_model_of_dark_image_files_takes_image_files() -> None:
    """Although its training values went no further than 20."""
    model = spec("image", (1, HEIGHT, WIDTH), 0.0, 20.0, ImageFiles(resize=None))
    np.testing.assert_array_equal(ask(b64(GREY_PNG), model=model), GREY_HW[None, None])


def test_base64_that_does_not_say_what_it_is_gets_the_two_forms_that_do() -> None:
    with pytest.raises(InvalidRequest, match=r"instances\[0\] to be numbers or an image file, .* \{\"b64\": \"...\"\}"):
        ask(base64.b64encode(GREY_PNG).decode())
