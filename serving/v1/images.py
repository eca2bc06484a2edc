"""Image files as instances: PNG and JPEG in base64, decoded only once their header fits the model.

Nothing is guessed: sizes must match, values are those in the file, and what would change them on the way (scaling,
transparency, more than eight bits) is refused with the cure.
"""

from __future__ import annotations

import binascii
import io
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from dubio.serving.errors import InvalidRequest, TooManyRows

if TYPE_CHECKING:  # which would bring torch along
    from dubio.models import InputSpec

KEY = "b64"
DATA_URL = "data:image/"
# By their first bytes, whatever the data URL claims. The classes themselves, not `Image.open`: that would try other
# formats too, and warn about sizes which are compared here anyway.
_FORMATS: dict[bytes, type[ImageFile]] = {b"\x89PNG\r\n\x1a\n": PngImageFile, b"\xff\xd8\xff": JpegImageFile}
_MODES = {1: "L", 3: "RGB"}  # by number of channels
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # at most eight bits a channel, and none of them inverted
# A model whose training values went no further than this was not trained on the bytes of image files.
_LEAST_HIGH = 128
# Numbers that the images of one request may decode to: 64 MiB as float32. A body of a few kilobytes can hold more.
_MOST_NUMBERS = 2**24


@dataclass(frozen=True)
class ImageCodec:
    """Image files of one model.

    Attributes:
        spec: What the model takes.
    """

    spec: InputSpec

    @property
    def unsupported(self) -> str | None:
        """Why the model takes no image files; None if it does."""
        if self.spec.kind != "image":
            return "this model takes rows of numbers"
        if self.spec.shape[0] not in _MODES:
            return f"this model takes images of {self.spec.shape[0]} channels"
        if not (self.spec.low >= 0 and _LEAST_HIGH <= self.spec.high <= 255):
            return (
                f"values in a file go from 0 to 255, and this model was trained on values from {self.spec.low:g} to "
                f"{self.spec.high:g}, so send such numbers"
            )
        return None

    def encode(self, instance: Any) -> dict[str, str]:
        """An instance of numbers as a PNG file, as `decode` takes it."""
        channels, height, width = self.spec.shape
        values_CHW = np.asarray(instance, dtype=np.uint8).reshape(channels, height, width)
        pixels = values_CHW[0] if channels == 1 else values_CHW.transpose(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
        return {KEY: b64encode(file.getvalue()).decode()}

    def refuse_too_many(self, count: int) -> None:
        """Raise TooManyRows for so many files that their pixels would take too much memory."""
        most = max(1, _MOST_NUMBERS // int(np.prod(self.spec.shape)))
        if count > most:
            raise TooManyRows(
                f"Expected at most {most} image files of this model's size in one request, but got {count}; split them "
                "over several requests."
            )

    def decode(self, instance: Any, *, where: str) -> NDArray[np.uint8]:
        """The pixels of an image file, flat and with the channels first.

        Args:
            instance: `{"b64": "..."}` or a data URL.
            where: Its name, for messages.

        Raises:
            InvalidRequest: No base64, no PNG or JPEG, damaged, or not what the model takes.
        """
        if self.unsupported is not None:
            raise InvalidRequest(f"Expected {where} to be numbers, but got an image file; {self.unsupported}.")
        data = _read_base64(instance, where)
        try:
            image = _open(data, where)
            self._refuse_other_forms(image, data, where)
            image.verify()  # checksums and the end, which decoding alone would not look at; it spends the object
            image = _open(data, where)
            image.load()
            return self._pixels(image, where)
        except InvalidRequest:
            raise
        except Exception as error:  # decoders raise a dozen types on damaged or hostile files; all mean the same here
            cause = str(error).split("\n")[0][:100] or type(error).__name__
            raise InvalidRequest(
                f"Expected {where} to be a whole PNG or JPEG file, but it cannot be decoded: {cause}; send the file's "
                "bytes as they are, in base64."
            ) from error

    def _refuse_other_forms(self, image: ImageFile, data: bytes, where: str) -> None:
        _, height, width = self.spec.shape
        if image.size != (width, height):
            raise InvalidRequest(
                f"Expected {where} to be {width} pixels wide and {height} high, but it is {image.size[0]} wide and "
                f"{image.size[1]} high; resize it as the training images were."
            )
        # Of 16 bits in colour the decoder would drop 8 and not say so; the 25th byte of a PNG says how many there are.
        depth = data[24] if image.format == "PNG" else 8
        if image.mode not in _EIGHT_BIT_MODES or depth > 8:
            raise InvalidRequest(
                f"Expected {where} to have at most 8 bits a channel, in grey or RGB, but its mode is {image.mode} with "
                f"{depth} bits; convert it."
            )
        if getattr(image, "is_animated", False):
            raise InvalidRequest(f"Expected {where} to be one picture, but it is animated; send one of its frames.")

    def _pixels(self, image: ImageFile, where: str) -> NDArray[np.uint8]:
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
            raise InvalidRequest(
                f"Expected {where} to be opaque, but some of its pixels are transparent; put it on the background that "
                "the training images had."
            )
        channels = self.spec.shape[0]
        values_HWC = np.asarray(image.convert(_MODES[channels])).reshape(*self.spec.shape[1:], channels)
        return values_HWC.transpose(2, 0, 1).ravel()


def _read_base64(instance: Any, where: str) -> bytes:
    if isinstance(instance, dict):
        text = instance.get(KEY)
        if instance.keys() != {KEY} or not isinstance(text, str):
            raise InvalidRequest(
                f'Expected {where} to be numbers or {{"{KEY}": "..."}} with a PNG or JPEG file in base64, but got '
                "another object."
            )
        url = text.startswith("data:")
    else:
        text, url = instance, True
    if url:
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidRequest(f"Expected {where} to be a data URL like data:image/png;base64,..., but it is not.")
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"Expected {where} to hold base64, but it cannot be read: {error}.") from error


def _open(data: bytes, where: str) -> ImageFile:
    """The file with its header read and nothing decoded."""
    for start, kind in _FORMATS.items():
        if data.startswith(start):
            return kind(io.BytesIO(data))
    raise InvalidRequest(
        f"Expected {where} to be a PNG or JPEG file, but its first bytes are {data[:8].hex(' ') or 'missing'}; "
        "convert it."
    )
