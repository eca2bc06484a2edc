"""From the bytes of a predict request to what is asked of a model. Knows neither HTTP nor torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.v1.schema import Parameters, PredictRequest
from dubio.serving.wire.arrays import flatten, to_float32
from dubio.serving.wire.effort import Effort
from dubio.serving.wire.envelope import limit_samples, name_value, read
from dubio.serving.wire.images import DATA_URL, KEY, ImageCodec

if TYPE_CHECKING:  # which would bring torch along
    from dubio.models import InputSpec, Samples


# Parsing this much takes about a millisecond.
_LONG_BYTES = 64 * 1024
# Texts are divided into words, and rows looked at value by value, which takes longer.
_LONG_READER_BYTES = 4 * 1024
# A character of three bytes may become eighteen when a text is brought into its normal form.
_LONG_FOREIGN_BYTES = 1024


@dataclass(frozen=True)
class DecodedRequest:
    """A request that passed every check.

    Attributes:
        id: To echo.
        inputs: Finite, [B, *shape].
        images: What was read of each image file, see `Picture.describe`; None for every other instance.
        samples: How many members to ask, None for all, `auto` for as many as it takes.
        explain: Whether to say why rows were flagged.
        instance: One as it was sent, by its number, where that is no numbers or files.
    """

    id: str | None
    inputs: NDArray[np.float32]
    images: list[dict[str, int | bool] | None]
    samples: Samples
    explain: bool = False
    instance: Callable[[int], Any] | None = None


def decode_request(
    body: bytes, *, spec: InputSpec, committee: int, max_rows: int, effort: Effort | None = None
) -> DecodedRequest:
    """Read a predict request.

    Args:
        body: Decompressed.
        spec: What the model takes.
        committee: Members of the model.
        max_rows: How many instances are allowed.
        effort: What reading may take.

    Raises:
        MalformedJSON: The body is no JSON.
        InvalidRequest, TooManyRows: It is JSON but breaks a rule; the message names field, rule, value and cure.
        InvalidInput: The model's reader of texts, of a table's rows or of image files refuses an instance.
        DeadlineExceeded: It takes too long.
    """
    request = read(body, PredictRequest)
    parameters = request.parameters or Parameters()
    samples = limit_samples(parameters.samples, committee=committee)
    inputs, images = to_array(request.instances, spec=spec, max_rows=max_rows, resize=parameters.resize, effort=effort)
    instance = None if spec.reader is None else request.instances.__getitem__
    return DecodedRequest(request.id, inputs, images, samples, parameters.explain or False, instance)


def takes_long(body: bytes, spec: InputSpec) -> bool:
    """Whether reading a body for a model takes longer than the event loop may be held up."""
    readers_most = _LONG_READER_BYTES if body.isascii() else _LONG_FOREIGN_BYTES
    if len(body) > (_LONG_BYTES if spec.reader is None else readers_most):
        return True
    # Image files take longer to read than their length tells; letters may be escaped.
    return b'"b64"' in body or b"data:image" in body or b"\\u" in body


def to_array(
    instances: list[Any], *, spec: InputSpec, max_rows: int, resize: bool = True, effort: Effort | None = None
) -> tuple[NDArray[np.float32], list[dict[str, int | bool] | None]]:
    """Read instances; those of numbers may leave out a leading channel axis of 1, or be flat in row-major order.

    Args:
        instances: From JSON, at least one.
        spec: What the model takes: numbers, image files, or else what its reader reads.
        max_rows: How many are allowed.
        resize: Whether image files of another size may be resized as the training images were.
        effort: What reading may take; None for one of its own.

    Returns:
        An array [B, *shape] of finite numbers, and what was read of each image file.

    Raises:
        TooManyRows: More than `max_rows` instances, or more pixels in files than are decoded for one request.
        InvalidRequest: Ragged, of another shape, no image file, or with a value that is no finite float32.
        InvalidInput: The reader refuses an instance.
    """
    if len(instances) > max_rows:
        raise TooManyRows(
            f"Expected `instances` to hold at most {max_rows} instances, but got {len(instances)}; "
            "split them over several requests."
        )
    if spec.reader is not None:
        return spec.reader.read(instances, (effort or Effort()).spend), [None] * len(instances)
    codec, accepted = ImageCodec(spec, resize), _accepted(spec.shape)
    files = {i: instance for i, instance in enumerate(instances) if _is_file(instance)}
    pictures = codec.decode_all(files) if files else {}
    rows = [
        pictures[i].pixels_CHW.ravel()
        if i in pictures
        else flatten(_not_bare(instance, i, codec), where=f"instances[{i}]", accepted=accepted)
        for i, instance in enumerate(instances)
    ]
    array = np.array(rows, dtype=np.uint8 if len(pictures) == len(rows) else np.float64)
    images = [pictures[i].describe() if i in pictures else None for i in range(len(rows))]
    return to_float32(array, where="`instances`").reshape(len(rows), *spec.shape), images


def _is_file(instance: object) -> bool:
    """Whether an instance is an image file rather than numbers."""
    return isinstance(instance, dict) or (isinstance(instance, str) and instance.startswith(DATA_URL))


def _not_bare(instance: object, index: int, codec: ImageCodec) -> object:
    """The instance, unless it is a string where an image file could be meant."""
    if isinstance(instance, str) and codec.unsupported is None:
        raise InvalidRequest(
            f"Expected instances[{index}] to be numbers or an image file, but got {name_value(instance)}; "
            f'send the base64 of a file as {{"{KEY}": "..."}} or as a data URL.'
        )
    return instance


def _accepted(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    without_channel = [shape[1:]] if len(shape) > 1 and shape[0] == 1 else []
    return list(dict.fromkeys([shape, *without_channel, (math.prod(shape),)]))
