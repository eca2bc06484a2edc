"""From the bytes of a predict request to what is asked of a model. Knows neither HTTP nor torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.v1.images import DATA_URL, KEY, ImageCodec
from dubio.serving.v1.schema import PredictRequest
from dubio.serving.wire.arrays import flatten, to_float32
from dubio.serving.wire.envelope import limit_samples, name_value, read

if TYPE_CHECKING:  # which would bring torch along
    from dubio.models import InputSpec, Samples


@dataclass(frozen=True)
class DecodedRequest:
    """A request that passed every check.

    Attributes:
        id: To echo.
        inputs: Finite, [B, *shape].
        samples: How many members to ask, None for all, `auto` for as many as it takes.
    """

    id: str | None
    inputs: NDArray[np.float32]
    samples: Samples


def decode_request(body: bytes, *, spec: InputSpec, committee: int, max_rows: int) -> DecodedRequest:
    """Read a predict request.

    Args:
        body: Decompressed.
        spec: What the model takes.
        committee: Members of the model.
        max_rows: How many instances are allowed.

    Raises:
        MalformedJSON: The body is no JSON.
        InvalidRequest, TooManyRows: It is JSON but breaks a rule; the message names field, rule, value and cure.
        InvalidInput: The model's reader of texts or of a table's rows refuses an instance.
    """
    request = read(body, PredictRequest)
    samples = request.parameters.samples if request.parameters else None
    return DecodedRequest(
        id=request.id,
        samples=limit_samples(samples, committee=committee),
        inputs=to_array(request.instances, spec=spec, max_rows=max_rows),
    )


def may_hold_images(body: bytes) -> bool:
    """Whether a body may hold image files, which take longer to read than its length tells."""
    return b'"b64"' in body or b"data:image" in body or b"\\u" in body  # letters may be escaped


def to_array(instances: list[Any], *, spec: InputSpec, max_rows: int) -> NDArray[np.float32]:
    """Read instances; those of numbers may leave out a leading channel axis of 1, or be flat in row-major order.

    Args:
        instances: From JSON, at least one.
        spec: What the model takes: numbers, image files, or else what its reader reads.
        max_rows: How many are allowed.

    Returns:
        An array [B, *shape] of finite numbers.

    Raises:
        TooManyRows: More than `max_rows` instances.
        InvalidRequest: Ragged, of another shape, no image file, or with a value that is no finite float32.
        InvalidInput: The reader refuses an instance.
    """
    if len(instances) > max_rows:
        raise TooManyRows(
            f"Expected `instances` to hold at most {max_rows} instances, but got {len(instances)}; "
            "split them over several requests."
        )
    if spec.reader is not None:
        return spec.reader.read(instances)
    codec, accepted = ImageCodec(spec), _accepted(spec.shape)
    files = sum(map(_is_file, instances))
    if files:
        codec.refuse_too_many(files)
    rows = [
        codec.decode(instance, where=f"instances[{i}]")
        if files and _is_file(instance)
        else flatten(_not_bare(instance, i, codec), where=f"instances[{i}]", accepted=accepted)
        for i, instance in enumerate(instances)
    ]
    array = np.array(rows, dtype=np.uint8 if files == len(rows) else np.float64)
    return to_float32(array, where="`instances`").reshape(len(rows), *spec.shape)


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
