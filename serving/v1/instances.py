"""From JSON to one float32 array: nested lists, refusing everything that numpy would guess about, or natural instances.

`numpy.array` alone would take "1.5", true and null for numbers.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.v1.images import KEY, Raster, is_file

if TYPE_CHECKING:  # which would bring torch along
    from dubio.models.inputs.reader import Reader

# Deeper than any input; JSON may nest a thousand levels and a message should not repeat them.
_MOST_AXES = 8

_KINDS = {bool: "a boolean", type(None): "null", dict: "an object", list: "a list"}


def to_array(
    instances: object,
    *,
    shape: tuple[int, ...],
    max_rows: int,
    raster: Raster | None = None,
    reader: Reader | None = None,
) -> NDArray[np.float32]:
    """Read instances of `shape`; each may leave out a leading channel axis of 1, or be flat, row-major.

    Args:
        instances: from JSON.
        shape: of one input.
        max_rows: that are allowed.
        raster: how image files are read; None if they are not.
        reader: of rows by column or of texts, which then are all that is read; None for numbers.

    Returns:
        An array [B, *shape] of finite numbers.

    Raises:
        TooManyRows: more than `max_rows` instances.
        InvalidRequest: no list, empty, ragged, of another shape, or with a value that is no finite float32.
        InvalidInput: the reader refuses an instance.
    """
    if not isinstance(instances, list):
        raise InvalidRequest(
            f"Expected `instances` to be a list with one entry an instance, but got {name_value(instances)}."
        )
    if not instances:
        raise InvalidRequest("Expected `instances` to hold at least one instance, but it is empty.")
    if len(instances) > max_rows:
        raise TooManyRows(
            f"Expected `instances` to hold at most {max_rows} instances, but got {len(instances)}; "
            "split them over several requests."
        )
    if reader is not None:
        return reader.read(instances)
    accepted = _accepted(shape)
    files = sum(map(is_file, instances)) if raster else 0
    if raster and files:
        raster.refuse_too_many(files)
    rows = [
        raster.read(instance, where=f"instances[{i}]")
        if raster and is_file(instance)
        else flatten(_not_bare(instance, i, raster), where=f"instances[{i}]", accepted=accepted)
        for i, instance in enumerate(instances)
    ]
    if files == len(rows):
        return np.stack(rows).astype(np.float32).reshape(len(rows), *shape)
    with np.errstate(over="ignore"):  # overflow is looked for below, with the value at hand
        array = np.array(rows, dtype=np.float64).astype(np.float32)
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InvalidRequest(
            f"Expected every value to fit a 32-bit float (at most 3.4e38), but instances[{row}] holds "
            f"{rows[row][column]!r} at position {column}; send raw input values."
        )
    return array.reshape(len(rows), *shape)


def _not_bare(instance: object, index: int, raster: Raster | None) -> object:
    """The instance, unless it is a string where an image file could be meant."""
    if isinstance(instance, str) and raster is not None and raster.unfit is None:
        raise InvalidRequest(
            f"Expected instances[{index}] to be numbers or an image file, but got {name_value(instance)}; "
            f'send the base64 of a file as {{"{KEY}": "..."}} or as a data URL.'
        )
    return instance


def _accepted(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    forms = [shape]
    if len(shape) > 1:
        if shape[0] == 1:
            forms.append(shape[1:])
        forms.append((math.prod(shape),))
    return list(dict.fromkeys(forms))


def flatten(instance: object, *, where: str, accepted: list[tuple[int, ...]]) -> list[float]:
    """The instance's numbers in row-major order, once its shape is one of `accepted`."""
    shape: list[int] = []
    level: list[Any] = [instance]
    while (kinds := set(map(type, level))) == {list}:
        sizes = set(map(len, level))
        if len(sizes) > 1:
            raise InvalidRequest(
                f"Expected {where} to be rectangular, but its lists on level {len(shape) + 1} have "
                f"{_listed(sorted(sizes))} entries; {_rule(accepted)}."
            )
        shape.append(sizes.pop())
        level = list(chain.from_iterable(level))
        if len(shape) == _MOST_AXES and list in set(map(type, level)):
            raise InvalidRequest(
                f"Expected {where} to have {_rule(accepted)}, but it nests more than {_MOST_AXES} lists."
            )
    if list in kinds:
        raise InvalidRequest(
            f"Expected {where} to be rectangular, but numbers and lists are mixed in it; {_rule(accepted)}."
        )
    if not kinds <= {int, float}:
        at = next(i for i, value in enumerate(level) if type(value) not in (int, float))
        index = "".join(f"[{i}]" for i in np.unravel_index(at, shape)) if shape else ""
        raise InvalidRequest(
            f"Expected {where}{index} to be a number, but got {name_value(level[at])}; send raw input values."
        )
    if tuple(shape) not in accepted:
        raise InvalidRequest(f"Expected {where} to have {_rule(accepted)}, but got shape {shape}.")
    return level


def _rule(accepted: list[tuple[int, ...]]) -> str:
    return "shape " + _listed([list(form) for form in accepted])


def _listed(items: list[Any]) -> str:
    words = [str(item) for item in items[:4]] + (["more"] if len(items) > 4 else [])
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def name_value(value: object) -> str:
    """A JSON value in a few words; lists and objects are not repeated, which could be long and deep."""
    if isinstance(value, str):
        return f"the string {value[:40]!r}" + (" (cut)" if len(value) > 40 else "")
    if type(value) in (int, float):
        return f"the number {value}"
    return _KINDS[type(value)]
