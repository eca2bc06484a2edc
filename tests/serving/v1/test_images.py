"""Image files against encoders of their own: Pillow's, and PNG put together by hand."""

from __future__ import annotations

import base64
import io
import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from dubio.models import InputSpec
from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.v1 import images
from dubio.serving.v1.decode import decode_request

HEIGHT, WIDTH = 5, 7


def spec(kind: str, shape: tuple[int, ...], low: float, high: float) -> InputSpec:
    """What a model takes whose raw values went from `low` to `high` in training."""
    return InputSpec(kind=kind, shape=shape, mean=(0.0,) * shape[0], std=(1.0,) * shape[0], low=low, high=high)


GREY = spec("image", (1, HEIGHT, WIDTH), 0.0, 255.0)
COLOUR = spec("image", (3, HEIGHT, WIDTH), 0.0, 250.0)
generator = np.random.default_rng(0)
GREY_HW = generator.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
COLOUR_HWC = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: list[bytes], *, colour_type: int, depth: int = 8, extra: bytes = b"", size: tuple[int, int] = (WIDTH, HEIGHT)
) -> bytes:
    """A PNG by the letter of its specification: no filter, one IDAT."""
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def ask(*instances: object, model: InputSpec = GREY) -> np.ndarray:
    body = json.dumps({"instances": instances}).encode()
    return decode_request(body, spec=model, committee=8, max_rows=50).inputs


GREY_PNG = png([row.tobytes() for row in GREY_HW], colour_type=0)
COLOUR_PNG = png([row.tobytes() for row in COLOUR_HWC], colour_type=2)


@pytest.mark.parametrize("file", [GREY_PNG, encode(Image.fromarray(GREY_HW), "PNG")], ids=["by hand", "Pillow"])
@pytest.mark.parametrize("form", [b64, url, lambda data: {"b64": url(data)}], ids=["b64", "data URL", "both"])
def test_a_grey_png_is_its_pixels(file: bytes, form) -> None:
    inputs = ask(form(file))
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs, GREY_HW[None, None])


@pytest.mark.parametrize("file", [COLOUR_PNG, encode(Image.fromarray(COLOUR_HWC), "PNG")], ids=["by hand", "Pillow"])
def test_a_colour_png_is_its_pixels_channels_first(file: bytes) -> None:
    np.testing.assert_array_equal(ask(b64(file), model=COLOUR), COLOUR_HWC.transpose(2, 0, 1)[None])


def test_grey_for_a_colour_model_is_three_times_the_same() -> None:
    np.testing.assert_array_equal(ask(b64(GREY_PNG), model=COLOUR), np.stack([GREY_HW] * 3)[None])


def test_colour_for_a_grey_model_is_its_luminance() -> None:
    # ITU-R 601-2, rounded to whole values.
    np.testing.assert_allclose(ask(b64(COLOUR_PNG))[0, 0], COLOUR_HWC @ [0.299, 0.587, 0.114], atol=1)


def test_few_bits_and_palettes_are_spread_over_all_values() -> None:
    bits_HW = GREY_HW > 127
    packed = [np.packbits(row).tobytes() for row in bits_HW]
    np.testing.assert_array_equal(ask(b64(png(packed, colour_type=0, depth=1)))[0, 0], 255 * bits_HW)
    palette = chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50]))
    rows = [row.astype(np.uint8).tobytes() for row in bits_HW]
    expected = np.where(bits_HW[None], np.array([200, 100, 50])[:, None, None], np.array([10, 20, 30])[:, None, None])
    pixels = ask(b64(png(rows, colour_type=3, extra=palette)), model=COLOUR)
    np.testing.assert_array_equal(pixels[0], expected)


def test_opaque_transparency_changes_nothing() -> None:
    rows = [np.concatenate([row, np.full((WIDTH, 1), 255, np.uint8)], 1).tobytes() for row in COLOUR_HWC]
    pixels = ask(b64(png(rows, colour_type=6)), model=COLOUR)
    np.testing.assert_array_equal(pixels[0], COLOUR_HWC.transpose(2, 0, 1))


@pytest.mark.parametrize("options", [{"quality": 100, "subsampling": 0}, {"quality": 100, "progressive": True}])
def test_a_jpeg_is_nearly_its_pixels(options: dict) -> None:
    smooth = np.add.outer(20 * np.arange(HEIGHT), 15 * np.arange(WIDTH)).astype(np.uint8)
    file = encode(Image.fromarray(smooth), "JPEG", **options)
    np.testing.assert_allclose(ask(b64(file))[0, 0], smooth, atol=3)
    np.testing.assert_array_equal(ask(url(file, "jpeg")), ask(b64(file)))
    # What the file is, not what its URL says.
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


OTHER_SIZE = png([b"\0" * HEIGHT] * WIDTH, colour_type=0, size=(HEIGHT, WIDTH))
BOMB = (
    b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**30, 2**30, 8, 6, 0, 0, 0)) + chunk(b"IDAT", b"x")
)
CLEAR = png([b"\x10\x00" * WIDTH] * HEIGHT, colour_type=4)
ANIMATED = encode(
    Image.fromarray(GREY_HW), "PNG", save_all=True, append_images=[Image.fromarray(255 - GREY_HW)], default_image=False
)

REFUSED = {
    "another size": (b64(OTHER_SIZE), "to be 7 pixels wide and 5 high, but it is 5 wide and 7 high; resize it"),
    "a bomb": (b64(BOMB), "but it is 1073741824 wide and 1073741824 high"),
    "sixteen bits": (
        b64(png([b"\1\2" * WIDTH] * HEIGHT, colour_type=0, depth=16)),
        "at most 8 bits a channel.*16 bits",
    ),
    "sixteen bits of colour": (b64(png([b"\1\2" * 3 * WIDTH] * HEIGHT, colour_type=2, depth=16)), "RGB with 16 bits"),
    "inks": (b64(encode(Image.new("CMYK", (WIDTH, HEIGHT)), "JPEG")), "its mode is CMYK"),
    "clear pixels": (b64(CLEAR), "to be opaque, but some of its pixels are transparent"),
    "one clear colour": (
        b64(png([bytes(WIDTH)] * HEIGHT, colour_type=0, extra=chunk(b"tRNS", b"\0\0"))),
        "pixels are transparent",
    ),
    "pictures that move": (b64(ANIMATED), "it is animated"),
    "another format": (b64(encode(Image.fromarray(GREY_HW), "BMP")), "its first bytes are 42 4d"),
    "a script": (b64(b"%!PS\nsystem"), "its first bytes are 25 21 50 53"),
    "nothing": ({"b64": ""}, "its first bytes are missing"),
    "no base64": ({"b64": "%%%%"}, "to hold base64, but it cannot be read"),
    "half a letter": ({"b64": "iVBORw0KGgo"}, "to hold base64, but it cannot be read"),
    "letters beyond ASCII": ({"b64": "é" * 8}, "to hold base64, but it cannot be read"),
    "no text": ({"b64": 7}, "but got another object"),
    "more keys": ({"b64": "", "url": "http://localhost/"}, "but got another object"),
    "another key": ({"url": "http://localhost/"}, "but got another object"),
    "no base64 in the URL": ("data:image/png,abc", "to be a data URL like"),
    "no comma in the URL": ("data:image/png;base64", "to be a data URL like"),
    "a header alone": (b64(GREY_PNG[:33]), "it cannot be decoded"),
    "a signature alone": (b64(GREY_PNG[:8]), "it cannot be decoded"),
    "two bytes missing": (b64(GREY_PNG[:-20]), "it cannot be decoded"),
    "half a JPEG": (b64(encode(Image.fromarray(GREY_HW), "JPEG")[:300]), "it cannot be decoded"),
    "three bytes of JPEG": (b64(b"\xff\xd8\xff"), "it cannot be decoded"),
    "a wrong checksum": (b64(GREY_PNG[:-14] + b"\0\0" + GREY_PNG[-12:]), "it cannot be decoded"),
    "a filter that there is not": (
        b64(GREY_PNG.replace(GREY_PNG[33:-12], chunk(b"IDAT", zlib.compress((b"\7" + bytes(WIDTH)) * HEIGHT)))),
        "it cannot be decoded",
    ),
    "text without end": (
        b64(png([bytes(WIDTH)] * HEIGHT, colour_type=0, extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**26))))),
        "it cannot be decoded",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_what_the_model_takes_is_refused(case: str) -> None:
    instance, complaint = REFUSED[case]
    with pytest.raises(InvalidRequest, match=rf"instances\[1\].*{complaint}"):
        ask(b64(GREY_PNG), instance)


@pytest.mark.parametrize("case", ["a bomb", "text without end", "another size"])
def test_a_bomb_takes_no_memory(case: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            ask(REFUSED[case][0])
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_small_files_of_large_images_are_bounded_before_any_is_decoded() -> None:
    large = spec("image", (3, 2048, 2048), 0.0, 255.0)
    blank = b64(encode(Image.new("1", (2048, 2048)), "PNG"))
    assert ask(blank, model=large).shape == (1, 3, 2048, 2048)
    with pytest.raises(TooManyRows, match=r"at most 1 image files .* but got 2; split"):
        ask(blank, blank, model=large)


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


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data())
def test_a_spoiled_file_is_an_image_or_refused(data: st.DataObject) -> None:
    files = [GREY_PNG, COLOUR_PNG, encode(Image.fromarray(GREY_HW), "JPEG"), ANIMATED]
    spoiled = bytearray(data.draw(st.sampled_from(files)))
    for _ in range(data.draw(st.integers(1, 4))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    del spoiled[data.draw(st.integers(1, len(spoiled))) :]
    try:
        pixels = ask(b64(bytes(spoiled)))
    except InvalidRequest:
        return
    assert pixels.shape == (1, 1, HEIGHT, WIDTH)
    assert 0 <= pixels.min() <= pixels.max() <= 255


def test_reading_files_changes_no_global_of_pillow() -> None:
    before = (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, dict(Image.OPEN))
    ask(b64(GREY_PNG))
    assert (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, dict(Image.OPEN)) == before
    assert images.KEY == "b64"


def test_base64_that_does_not_say_what_it_is_gets_the_two_forms_that_do() -> None:
    with pytest.raises(InvalidRequest, match=r"instances\[0\] to be numbers or an image file, .* \{\"b64\": \"...\"\}"):
        ask(base64.b64encode(GREY_PNG).decode())
