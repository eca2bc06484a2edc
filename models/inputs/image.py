"""Image files: how the bytes of a PNG, JPEG or WebP file become pixels, for training and service alike.

Nothing is guessed. What a file says about how it is to be looked at is done (its orientation, palettes, few bits, grey
or colour); what would change values on the way (more than eight bits, transparency, inks) is refused with the cure.
Colour profiles are left alone: the values in the file are the pixels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from dubio.models.errors import InvalidInput

MODES: Mapping[int, str] = {1: "L", 3: "RGB"}  # by number of channels
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
# Images that are not read; what is called otherwise is no image.
OTHER_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("apng", "avif", "bmp", "dcm", "dib", "exr", "gif", "heic", "heif", "ico", "j2k", "jp2", "jxl", "pbm", "pcx"),
        *("pgm", "pnm", "ppm", "psd", "svg", "tga", "tif", "tiff", "xbm"),
    )
)
MAX_PIXELS = 2**26  # of a file: more than any camera's, and 256 MiB once it is decoded

# Such files are decoded one at a time, or those of many callers would add up.
_LARGE_PIXELS = 2**22
_LARGE = Lock()
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # at most eight bits a channel, and none of them inverted
# What turns a picture upright, by what its file says of the camera.
_UPRIGHT: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# How files of other formats begin that hold pictures elsewhere, or are taken for one.
_OTHER_FORMATS: Mapping[str, bytes] = {
    "a GIF": rb"GIF8[79]a",
    "a BMP": rb"BM.{4}\0{4}",
    "a TIFF": rb"II[*+]\0|MM\0[*+]",
    "a HEIC": rb".{4}ftyp(?:hei[cmsx]|hev[cmx]|mif1|msf1)",
    "an AVIF": rb".{4}ftypavi[fs]",
    "a JPEG 2000": rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51",
    "a JPEG XL": rb"\0\0\0\x0cJXL \r\n|\xff\x0a",
    "a Photoshop (PSD)": rb"8BPS",
    "an icon (ICO)": rb"\0\0\x01\0[^\0]",
    "a Netpbm (PBM, PGM or PPM)": rb"P[1-7]\s",
    "an OpenEXR": rb"v/1\x01",
    "a DICOM": rb".{128}DICM",
    "an SVG": rb"\s*(?:<\?xml.{0,1000})?<svg",
    "a PDF": rb"%PDF-",
    "a PostScript": rb"%!PS",
    "an HTML": rb"\s*<(?:!doctype html|!DOCTYPE html|html)",
    "a ZIP": rb"PK\x03\x04",
    "a gzip": rb"\x1f\x8b",
    "a NumPy (.npy)": rb"\x93NUMPY",
}


@dataclass(frozen=True)
class Picture:
    """What was read of an image file.

    Attributes:
        pixels_CHW: From 0 to 255, in the size that was asked for.
        height: Of the picture in the file, once it is upright.
        width: As `height`.
        oriented: Whether the file's orientation turned or mirrored the picture.
        resized: Whether it was brought to another size.
    """

    pixels_CHW: NDArray[np.uint8]
    height: int
    width: int
    oriented: bool
    resized: bool

    def describe(self) -> dict[str, int | bool]:
        """Everything but the pixels."""
        return {"height": self.height, "width": self.width, "oriented": self.oriented, "resized": self.resized}


@dataclass(frozen=True)
class ImageReader:
    """Reads image files.

    Attributes:
        channels: 1 for grey, 3 for colour; what a file has of the other is converted.
        size: Height and width of the pixels; None for those of the file.
        resize: Whether a file of another size is brought to it: bilinear with antialiasing, each side by itself, so
            that a picture of another aspect ratio is stretched. If not, such a file is refused.
    """

    channels: int
    size: tuple[int, int] | None = None
    resize: bool = False

    def read(self, data: bytes, where: str) -> Picture:
        """The picture of a file.

        Args:
            data: The file's bytes; they are decoded only once their header fits.
            where: Names the file in messages.

        Raises:
            InvalidInput: No PNG, JPEG or WebP file, damaged, or not what this reader takes.
        """
        try:
            image = _open(data, where)
            self._refuse_by_header(image, data, where)
            with _LARGE if image.width * image.height > _LARGE_PIXELS else nullcontext():
                image.verify()  # checksums and the end, which decoding alone would not look at; it spends the object
                image = _open(data, where)
                image.load()
                return self._picture(image, where)
        except InvalidInput:
            raise
        except Exception as error:  # decoders raise a dozen types on damaged or hostile files; all mean the same here
            cause = str(error).split("\n")[0][:100] or type(error).__name__
            raise InvalidInput(
                f"Expected {where} to be a whole PNG, JPEG or WebP file, but it cannot be decoded: {cause}; use the "
                "file's bytes as they are, or write it anew."
            ) from error

    def _refuse_by_header(self, image: ImageFile, data: bytes, where: str) -> None:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise InvalidInput(
                f"Expected {where} to have at most {MAX_PIXELS} pixels, but it is {width} wide and {height} high; "
                "scale it down."
            )
        # Its orientation, which may stand at the end of the file, can still exchange the two.
        if self.size is not None and not self.resize and sorted(self.size) != sorted(image.size):
            raise _other_size(image, self.size, where)
        # Of 16 bits in colour the decoder would drop 8 and not say so; the 25th byte of a PNG says how many there are.
        depth = data[24] if image.format == "PNG" else 8
        if image.mode not in _EIGHT_BIT_MODES or depth > 8:
            raise InvalidInput(
                f"Expected {where} to have at most 8 bits a channel, in grey or RGB, but its mode is {image.mode} with "
                f"{depth} bits; convert it."
            )
        if getattr(image, "is_animated", False):
            raise InvalidInput(f"Expected {where} to be one picture, but it is animated; take one of its frames.")

    def _picture(self, image: Image.Image, where: str) -> Picture:
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
            raise InvalidInput(
                f"Expected {where} to be opaque, but some of its pixels are transparent; put it on the background that "
                "the training images had."
            )
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        if turn is not None:
            image = image.transpose(turn)
        height, width = image.height, image.width
        image = image.convert(MODES[self.channels])
        if self.size is not None and self.size != (height, width):
            if not self.resize:
                raise _other_size(image, self.size, where)
            image = image.resize(self.size[::-1], Image.Resampling.BILINEAR)
        values_HWC = np.asarray(image).reshape(image.height, image.width, self.channels)
        pixels_CHW = np.ascontiguousarray(values_HWC.transpose(2, 0, 1))
        return Picture(pixels_CHW, height, width, turn is not None, image.size != (width, height))


def is_image(file: Path) -> bool:
    """Whether a file goes by the name of an image, of a format that is read or of another, and is not hidden."""
    return not file.name.startswith(".") and file.suffix.lower() in OTHER_SUFFIXES.union(SUFFIXES)


def _other_size(image: Image.Image, size: tuple[int, int], where: str) -> InvalidInput:
    return InvalidInput(
        f"Expected {where} to be {size[1]} pixels wide and {size[0]} high, but it is {image.width} wide and "
        f"{image.height} high; resize it as the training images were."
    )


def _open(data: bytes, where: str) -> ImageFile:
    """The file with its header read and nothing decoded."""
    # By its first bytes, whatever it is called. The classes themselves, not `Image.open`: that would try other formats
    # too, and warn about sizes which are compared here anyway.
    file = io.BytesIO(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile(file)
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile(file)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile(file)
    raise InvalidInput(f"Expected {where} to be a PNG, JPEG or WebP file, but {_describe(data)}.")


def _describe(data: bytes) -> str:
    """What a file is that is not read, and the cure."""
    if not data:
        return "it is empty; give the bytes of the file"
    kind = next((kind for kind, begins in _OTHER_FORMATS.items() if re.match(begins, data, re.DOTALL)), None)
    if kind is None:
        return f"its first bytes are {data[:8].hex(' ')}; convert it"
    return f"it is {kind} file; convert it"
