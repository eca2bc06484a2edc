"""The reader of image files against encoders of their own: Pillow's, and PNG put together by hand."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from dubio.models.errors import InvalidInput
from dubio.models.inputs.image import MAX_PIXELS, ImageReader
from tests.pictures import chunk, encode, oriented, png

HEIGHT, WIDTH = 5, 7
SIZE = (WIDTH, HEIGHT)
generator = np.random.default_rng(0)
GREY_HW = generator.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
COLOUR_HWC = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY_PNG = png([row.tobytes() for row in GREY_HW], colour_type=0, size=SIZE)
COLOUR_PNG = png([row.tobytes() for row in COLOUR_HWC], colour_type=2, size=SIZE)
GREY, COLOUR = ImageReader(1, (HEIGHT, WIDTH)), ImageReader(3, (HEIGHT, WIDTH))


def pixels(data: bytes, reader: ImageReader = GREY) -> np.ndarray:
    return reader.read(data, "it").pixels_CHW


@pytest.mark.parametrize(
    "file",
    [
        GREY_PNG,
        encode(Image.fromarray(GREY_HW)),
        encode(Image.fromarray(GREY_HW).convert("RGB"), "WEBP", lossless=True),
    ],
    ids=["PNG by hand", "PNG", "WebP"],
)
def test_a_grey_file_is_its_pixels(file: bytes) -> None:
    assert pixels(file).dtype == np.uint8
    np.testing.assert_array_equal(pixels(file), GREY_HW[None])


@pytest.mark.parametrize(
    "file",
    [COLOUR_PNG, encode(Image.fromarray(COLOUR_HWC)), encode(Image.fromarray(COLOUR_HWC), "WEBP", lossless=True)],
    ids=["PNG by hand", "PNG", "WebP"],
)
def test_a_colour_file_is_its_pixels_channels_first(file: bytes) -> None:
    np.testing.assert_array_equal(pixels(file, COLOUR), COLOUR_HWC.transpose(2, 0, 1))


def test_grey_for_colour_is_three_times_the_same() -> None:
    np.testing.assert_array_equal(pixels(GREY_PNG, COLOUR), np.stack([GREY_HW] * 3))


def test_colour_for_grey_is_its_luminance() -> None:
    # ITU-R 601-2, rounded to whole values.
    np.testing.assert_allclose(pixels(COLOUR_PNG)[0], COLOUR_HWC @ [0.299, 0.587, 0.114], atol=1)


def test_few_bits_and_palettes_are_spread_over_all_values() -> None:
    bits_HW = GREY_HW > 127
    packed = [np.packbits(row).tobytes() for row in bits_HW]
    np.testing.assert_array_equal(pixels(png(packed, colour_type=0, depth=1, size=SIZE))[0], 255 * bits_HW)
    palette = chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50]))
    rows = [row.astype(np.uint8).tobytes() for row in bits_HW]
    expected = np.where(bits_HW[None], np.array([200, 100, 50])[:, None, None], np.array([10, 20, 30])[:, None, None])
    file = png(rows, colour_type=3, extra=palette, size=SIZE)
    np.testing.assert_array_equal(pixels(file, COLOUR), expected)


def test_opaque_transparency_changes_nothing() -> None:
    rows = [np.concatenate([row, np.full((WIDTH, 1), 255, np.uint8)], 1).tobytes() for row in COLOUR_HWC]
    file = png(rows, colour_type=6, size=SIZE)
    np.testing.assert_array_equal(pixels(file, COLOUR), COLOUR_HWC.transpose(2, 0, 1))


@pytest.mark.parametrize("options", [{"quality": 100, "subsampling": 0}, {"quality": 100, "progressive": True}])
def test_a_jpeg_is_nearly_its_pixels(options: dict) -> None:
    smooth = np.add.outer(20 * np.arange(HEIGHT), 15 * np.arange(WIDTH)).astype(np.uint8)
    np.testing.assert_allclose(pixels(encode(Image.fromarray(smooth), "JPEG", **options))[0], smooth, atol=3)


def test_a_colour_profile_leaves_the_values_alone() -> None:
    file = encode(Image.fromarray(COLOUR_HWC), icc_profile=b"a wide gamut")
    np.testing.assert_array_equal(pixels(file, COLOUR), COLOUR_HWC.transpose(2, 0, 1))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_as_its_file_says(orientation: int, kind: str, options: dict) -> None:
    file = oriented(Image.fromarray(COLOUR_HWC), orientation, kind, **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB"))
    picture = ImageReader(3).read(file, "it")
    np.testing.assert_array_equal(picture.pixels_CHW, upright.transpose(2, 0, 1))
    assert picture.describe() == {
        "height": upright.shape[0],
        "width": upright.shape[1],
        "oriented": orientation > 1,
        "resized": False,
    }


def test_the_camera_that_was_held_upright_took_a_picture_with_its_top_on_the_right_of_the_file() -> None:
    # Orientation 6: what the file calls its left column is the picture's top row.
    np.testing.assert_array_equal(
        ImageReader(1).read(oriented(Image.fromarray(GREY_HW), 6), "it").pixels_CHW[0], np.rot90(GREY_HW, -1)
    )


def test_sizes_are_those_of_the_upright_picture() -> None:
    lying = oriented(Image.fromarray(GREY_HW.T), 8)
    np.testing.assert_array_equal(pixels(lying)[0], np.rot90(GREY_HW.T))
    with pytest.raises(InvalidInput, match="to be 7 pixels wide and 5 high, but it is 5 wide and 7 high"):
        pixels(oriented(Image.fromarray(GREY_HW), 6))


@pytest.mark.parametrize("size", [(3, 4), (5, 4), (9, 20)])
def test_a_picture_is_resized_each_side_by_itself(size: tuple[int, int]) -> None:
    picture = ImageReader(3, size, resize=True).read(COLOUR_PNG, "it")
    expected = Image.fromarray(COLOUR_HWC).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(picture.pixels_CHW, np.asarray(expected).transpose(2, 0, 1))
    assert picture.describe() == {"height": HEIGHT, "width": WIDTH, "oriented": False, "resized": True}


def test_shrinking_averages_all_pixels() -> None:
    # With antialiasing, unlike the bilinear filter of most tensor libraries, no pixel is left out.
    (((value,),),) = pixels(png([b"\0\xff" * 8] * 16, colour_type=0, size=(16, 16)), ImageReader(1, (1, 1), True))
    assert value in (127, 128)


def test_a_picture_is_turned_upright_before_it_is_resized() -> None:
    file = oriented(Image.fromarray(COLOUR_HWC), 6)
    expected = Image.fromarray(np.rot90(COLOUR_HWC, -1)).resize((3, 4), Image.Resampling.BILINEAR)
    picture = ImageReader(3, (4, 3), resize=True).read(file, "it")
    np.testing.assert_array_equal(picture.pixels_CHW, np.asarray(expected).transpose(2, 0, 1))
    assert picture.describe() == {"height": WIDTH, "width": HEIGHT, "oriented": True, "resized": True}


BOMB = (
    b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**30, 2**30, 8, 6, 0, 0, 0)) + chunk(b"IDAT", b"x")
)
WEBP = encode(Image.fromarray(COLOUR_HWC), "WEBP", lossless=True)
WEBP_BOMB = encode(Image.new("RGB", (2**13 + 1, 2**13)), "WEBP", quality=1, method=0)
CLEAR = png([b"\x10\x00" * WIDTH] * HEIGHT, colour_type=4, size=SIZE)
FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - GREY_HW)]}
ANIMATED = encode(Image.fromarray(GREY_HW), "PNG", default_image=False, **FRAMES)

REFUSED = {
    "another size": (
        png([b"\0" * HEIGHT] * WIDTH, colour_type=0, size=(HEIGHT, WIDTH)),
        "to be 7 pixels wide and 5 high, but it is 5 wide and 7 high; resize it",
    ),
    "a bomb": (BOMB, "at most 67108864 pixels, but it is 1073741824 wide and 1073741824 high; scale it down"),
    "a bomb in WebP": (WEBP_BOMB, "at most 67108864 pixels, but it is 8193 wide"),
    "sixteen bits": (
        png([b"\1\2" * WIDTH] * HEIGHT, colour_type=0, depth=16, size=SIZE),
        "at most 8 bits a channel.* I;16 with 16 bits",
    ),
    "sixteen bits of colour": (
        png([b"\1\2" * 3 * WIDTH] * HEIGHT, colour_type=2, depth=16, size=SIZE),
        "its mode is RGB with 16 bits",
    ),
    "sixteen bits of grey and opacity": (
        png([b"\1\2\xff\xff" * WIDTH] * HEIGHT, colour_type=4, depth=16, size=SIZE),
        "with 16 bits; convert it",
    ),
    "inks": (encode(Image.new("CMYK", SIZE), "JPEG"), "its mode is CMYK"),
    "clear pixels": (CLEAR, "to be opaque, but some of its pixels are transparent"),
    "clear pixels in WebP": (
        encode(Image.new("RGBA", SIZE, (1, 2, 3, 9)), "WEBP"),
        "some of its pixels are transparent",
    ),
    "one clear colour": (
        png([bytes(WIDTH)] * HEIGHT, colour_type=0, extra=chunk(b"tRNS", b"\0\0"), size=SIZE),
        "pixels are transparent",
    ),
    "a clear colour of a palette": (
        png([bytes(WIDTH)] * HEIGHT, colour_type=3, extra=chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\0"), size=SIZE),
        "pixels are transparent",
    ),
    "pictures that move": (ANIMATED, "it is animated"),
    "pictures that move in WebP": (encode(Image.fromarray(GREY_HW), "WEBP", **FRAMES), "it is animated"),
    "GIF": (
        encode(Image.fromarray(GREY_HW), "GIF", **FRAMES),
        "PNG, JPEG or WebP file, but it is a GIF file; convert it",
    ),
    "another format": (encode(Image.fromarray(GREY_HW), "BMP"), "it is a BMP file"),
    "a script": (b"%!PS\nsystem", "it is a PostScript file"),
    "nothing": (b"", "it is empty; give the bytes"),
    "noise": (b"\x01\x02BM", "its first bytes are 01 02 42 4d; convert it"),
    "a header alone": (GREY_PNG[:33], "it cannot be decoded"),
    "a signature alone": (GREY_PNG[:8], "it cannot be decoded"),
    "two bytes missing": (GREY_PNG[:-20], "it cannot be decoded"),
    "half a JPEG": (encode(Image.fromarray(GREY_HW), "JPEG")[:300], "it cannot be decoded"),
    "a JPEG without its end": (encode(Image.fromarray(GREY_HW), "JPEG")[:-4], "it cannot be decoded"),
    "three bytes of JPEG": (b"\xff\xd8\xff", "it cannot be decoded"),
    "half a WebP": (WEBP[: len(WEBP) // 2], "it cannot be decoded"),
    "a WebP without its end": (WEBP[:-2], "it cannot be decoded"),
    "a wrong checksum": (GREY_PNG[:-14] + b"\0\0" + GREY_PNG[-12:], "it cannot be decoded"),
    "a filter that there is not": (
        GREY_PNG.replace(GREY_PNG[33:-12], chunk(b"IDAT", zlib.compress((b"\7" + bytes(WIDTH)) * HEIGHT))),
        "it cannot be decoded",
    ),
    "text without end": (
        png(
            [bytes(WIDTH)] * HEIGHT,
            colour_type=0,
            extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**26))),
            size=SIZE,
        ),
        "it cannot be decoded",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_be_itself_is_refused(case: str) -> None:
    data, complaint = REFUSED[case]
    with pytest.raises(InvalidInput, match=rf"Expected the picture .*{complaint}") as caught:
        GREY.read(data, "the picture")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        *(("GIF", "a GIF"), ("BMP", "a BMP"), ("TIFF", "a TIFF"), ("ICO", "an icon (ICO)"), ("PPM", "a Netpbm")),
        *(("JPEG2000", "a JPEG 2000"), ("AVIF", "an AVIF"), ("PDF", "a PDF")),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "an SVG"),
        (b"<!DOCTYPE html><title>Not found</title>", "an HTML"),
        (bytes(128) + b"DICM\2\0", "a DICOM"),
    ],
)
def test_a_file_of_another_format_is_told_by_its_content(kind: str | bytes, told: str) -> None:
    if isinstance(kind, str) and kind not in Image.SAVE and not (Image.init() and kind in Image.SAVE):
        pytest.skip(f"this Pillow writes no {kind}")
    data = kind if isinstance(kind, bytes) else encode(Image.fromarray(GREY_HW), kind)
    with pytest.raises(InvalidInput, match=r"a PNG, JPEG or WebP file, but it is .* file; convert it") as caught:
        GREY.read(data, "cat.png")
    assert f"but it is {told}" in str(caught.value)


@pytest.mark.parametrize("case", sorted(REFUSED.keys() - {"another size"}))
def test_a_reader_that_resizes_refuses_the_rest_all_the_same(case: str) -> None:
    data, complaint = REFUSED[case]
    with pytest.raises(InvalidInput, match=complaint):
        ImageReader(1, (3, 3), resize=True).read(data, "it")


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("case", ["a bomb", "text without end", "a bomb in WebP"])
def test_a_bomb_takes_no_memory(case: str, resize: bool) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput):
            ImageReader(1, (HEIGHT, WIDTH), resize).read(REFUSED[case][0], "it")
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_large_photograph_is_read() -> None:
    # 24 million pixels, as of a usual camera; such files are decoded one at a time.
    photograph = encode(Image.new("L", (6000, 4000), 77), "JPEG")
    assert MAX_PIXELS >= 6000 * 4000
    picture = ImageReader(1, (2, 3), resize=True).read(photograph, "it")
    assert (picture.height, picture.width, picture.pixels_CHW.tolist()) == (4000, 6000, [[[77] * 3] * 2])
    assert ImageReader(1, (2, 3), resize=True).read(photograph, "it").resized


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data())
def test_a_spoiled_file_is_an_image_or_refused(data: st.DataObject) -> None:
    files = [GREY_PNG, COLOUR_PNG, encode(Image.fromarray(GREY_HW), "JPEG"), ANIMATED, WEBP]
    spoiled = bytearray(data.draw(st.sampled_from(files)))
    for _ in range(data.draw(st.integers(1, 4))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    del spoiled[data.draw(st.integers(1, len(spoiled))) :]
    try:
        read = pixels(bytes(spoiled))
    except InvalidInput:
        return
    assert read.shape == (1, HEIGHT, WIDTH)
    assert 0 <= read.min() <= read.max() <= 255


def test_reading_files_changes_no_global_of_pillow() -> None:
    before = (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, dict(Image.OPEN))
    pixels(GREY_PNG)
    assert (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, dict(Image.OPEN)) == before
