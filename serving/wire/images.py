"""Image files as instances: PNG, JPEG and WebP in base64, read as those of a training set are."""

from __future__ import annotations

import binascii
import io
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dubio.models.inputs.image import MAX_PIXELS, ImageReader, Picture
from dubio.serving.errors import InvalidRequest, TooManyRows

if TYPE_CHECKING:  # which would bring torch along
    from dubio.models import InputSpec

KEY = "b64"
DATA_URL = "data:image/"
# Numbers that the images of one request may decode to: 64 MiB as float32. A body of a few kilobytes can hold more.
_MOST_NUMBERS = 2**24


def _instance(index: int) -> str:
    return f"instances[{index}]"


@dataclass(frozen=True)
class ImageCodec:
    """Image files of one model.

    Attributes:
        spec: What the model takes.
        resize: Whether files of another size are brought to the model's, where the training did so, too.
    """

    spec: InputSpec
    resize: bool = True

    @property
    def unsupported(self) -> str | None:
        """Why the model takes no image files; None if it does."""
        return self.spec.no_files

    def encode(self, instance: Any) -> dict[str, str]:
        """An instance of numbers as a PNG file, as `decode_all` takes it."""
        channels, height, width = self.spec.shape
        values_CHW = np.asarray(instance, dtype=np.uint8).reshape(channels, height, width)
        pixels = values_CHW[0] if channels == 1 else values_CHW.transpose(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
        return {KEY: b64encode(file.getvalue()).decode()}

    def decode_all(self, instances: Mapping[int, Any], where: Callable[[int], str] = _instance) -> dict[int, Picture]:
        """The pictures of a request's image files.

        Args:
            instances: A file's bytes, `{"b64": "..."}` or a data URL, by their number in the request.
            where: Names one in messages.

        Raises:
            TooManyRows: Files whose pixels would take too much memory or time.
            InvalidRequest: No base64, or the model takes no files.
            InvalidInput: No PNG, JPEG or WebP, damaged, or not what the model takes.
        """
        most = max(1, _MOST_NUMBERS // int(np.prod(self.spec.shape)))
        if len(instances) > most:
            raise TooManyRows(
                f"Expected at most {most} image files of this model's size in one request, but got {len(instances)}; "
                "split them over several requests."
            )
        pictures, pixels = {}, 0
        for index, instance in instances.items():
            pictures[index] = self._decode(instance, where(index))
            pixels += pictures[index].height * pictures[index].width
            if pixels > MAX_PIXELS:
                raise TooManyRows(
                    f"Expected the image files of one request to have at most {MAX_PIXELS} pixels in all, but those up "
                    f"to {where(index)} have {pixels}; split them over several requests."
                )
        return pictures

    def _decode(self, instance: Any, where: str) -> Picture:
        if self.unsupported is not None:
            raise InvalidRequest(f"Expected {where} to be numbers, but got an image file; {self.unsupported}.")
        data = instance if isinstance(instance, bytes) else _read_base64(instance, where)
        channels, height, width = self.spec.shape
        return ImageReader(channels, (height, width), self.resize and self.spec.resizes).read(data, where)


def _read_base64(instance: Any, where: str) -> bytes:
    if isinstance(instance, dict):
        text = instance.get(KEY)
        if instance.keys() != {KEY} or not isinstance(text, str):
            raise InvalidRequest(
                f'Expected {where} to be numbers or {{"{KEY}": "..."}} with a PNG, JPEG or WebP file in base64, but '
                "got another object."
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
