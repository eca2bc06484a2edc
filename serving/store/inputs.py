"""Inputs as they are stored: in full, as a small picture, or not at all."""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from dubio.models import InputSpec

StoredInput = Literal["input", "thumbnail", "hash"]
# The longer side of a thumbnail.
_SIDE = 32
_COLOURS = (1, 3)


class Form(StrEnum):
    """How an input is stored."""

    ARRAY = "array"
    JSON = "json"
    THUMBNAIL = "thumbnail"
    HASH = "hash"


@dataclass(frozen=True)
class EncodedInput:
    """An input as a row of the store has it.

    Attributes:
        form: How to read `content`.
        digest: SHA-256 of the numbers that the model took, whatever is stored of them.
        content: None where nothing but the digest is stored.
    """

    form: Form
    digest: str
    content: bytes | None


def encode(raw: NDArray[np.float32], instance: bytes | None, spec: InputSpec, stored: StoredInput) -> EncodedInput:
    """What is stored of one input.

    Args:
        raw: What the model took.
        instance: What the caller sent, as JSON, where that is a row of a table or a text.
        spec: Of the model.
        stored: How much.
    """
    digest = sha256(np.ascontiguousarray(raw, np.float32).tobytes()).hexdigest()
    if stored == "input" and instance is not None:
        return EncodedInput(Form.JSON, digest, instance)
    if stored == "input":
        return EncodedInput(Form.ARRAY, digest, _write(raw))
    if stored == "thumbnail" and spec.kind == "image" and spec.shape[0] in _COLOURS:
        return EncodedInput(Form.THUMBNAIL, digest, _write(shrink(raw, spec.low, spec.high)))
    return EncodedInput(Form.HASH, digest, None)


def read_array(content: bytes) -> NDArray[Any]:
    """An array, or the pixels of a thumbnail."""
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def read_instance(form: str, content: bytes | None) -> Any:
    """The input as a predict request takes it; None where it is not stored in full."""
    if content is None or form not in (Form.ARRAY, Form.JSON):
        return None
    return orjson.loads(content) if form == Form.JSON else read_array(content).tolist()


def read_picture(form: str, content: bytes | None, low: float, high: float) -> NDArray[np.uint8] | None:
    """The pixels [C, h, w] of an input that is a picture, to look at; None where there are none.

    Args:
        form: Of the input.
        content: Of the input.
        low: The raw value that is black.
        high: The raw value that is white.
    """
    if content is None or form not in (Form.ARRAY, Form.THUMBNAIL):
        return None
    array = read_array(content)
    if array.ndim != 3 or array.shape[0] not in _COLOURS:
        return None
    return array if form == Form.THUMBNAIL else to_pixels(array, low, high)


def shrink(raw: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """A picture [C, h, w] of at most 32 x 32 pixels; `low` is black and `high` white."""
    pixels = to_pixels(raw, low, high)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1)))
    picture.thumbnail((_SIDE, _SIDE))
    small = np.asarray(picture)
    return small[np.newaxis] if small.ndim == 2 else np.moveaxis(small, -1, 0)


def to_pixels(raw: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Raw values as pixels from 0 to 255, `low` being 0 and `high` 255; what lies outside is cut off."""
    span = high - low or 1.0
    pixels: NDArray[np.uint8] = np.clip(np.rint((raw.astype(np.float64) - low) * (255 / span)), 0, 255).astype(np.uint8)
    return pixels


def _write(array: NDArray[Any]) -> bytes:
    """The bytes of an .npy file; whole numbers of a byte are stored as such."""
    with np.errstate(invalid="ignore"):  # what is none is seen below
        small = array.astype(np.uint8)
    file = io.BytesIO()
    np.save(file, small if np.array_equal(small, array) else array, allow_pickle=False)
    return file.getvalue()
