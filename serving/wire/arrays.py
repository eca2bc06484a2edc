"""From lists of JSON to float32 numbers, refusing everything that numpy would guess about.

`numpy.array` alone would take "1.5", true and null for numbers.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubio.serving.errors import InvalidRequest
from dubio.serving.wire.envelope import name_value

# Deeper than any input; JSON may nest a thousand levels and a message should not repeat them.
_MOST_AXES = 8


def flatten(instance: object, *, where: str, accepted: list[tuple[int, ...]]) -> list[float]:
    """The instance's numbers in row-major order, once its shape is one of `accepted`.

    Args:
        instance: From JSON.
        where: Its name, for messages.
        accepted: Shapes that it may have.

    Raises:
        InvalidRequest: Ragged, no numbers, or of another shape.
    """
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
    if not shape and () not in accepted:
        raise InvalidRequest(f"Expected {where} to have {_rule(accepted)}, but got {name_value(instance)}.")
    if not kinds <= {int, float}:
        at = next(i for i, value in enumerate(level) if type(value) not in (int, float))
        index = "".join(f"[{i}]" for i in np.unravel_index(at, shape)) if shape else ""
        raise InvalidRequest(
            f"Expected {where}{index} to be a number, but got {name_value(level[at])}; send raw input values."
        )
    if tuple(shape) not in accepted:
        raise InvalidRequest(f"Expected {where} to have {_rule(accepted)}, but got shape {shape}.")
    return level


def to_float32(numbers: NDArray[Any], *, where: str) -> NDArray[np.float32]:
    """Rows of numbers [B, ...] as float32: the array itself if it is that already.

    Args:
        numbers: Of any kind.
        where: Their name, for messages.

    Raises:
        InvalidRequest: One of them is not finite, or not as a float32.
    """
    floats: NDArray[np.float32] = numbers
    if numbers.dtype != np.float32:
        with np.errstate(over="ignore", invalid="ignore"):  # overflow is looked for below, with the value at hand
            floats = numbers.astype(np.float32)
    if not np.isfinite(floats).all():
        row, position = np.argwhere(~np.isfinite(floats.reshape(len(floats), -1)))[0].tolist()
        raise InvalidRequest(
            f"Expected the numbers of {where} to be finite and to fit 32-bit floats (at most 3.4e38), but row {row} "
            f"holds {numbers.reshape(len(numbers), -1)[row, position].item()!r} at position {position}; send raw input "
            "values, and leave the row out or fill in what is missing."
        )
    return floats


def _rule(accepted: list[tuple[int, ...]]) -> str:
    return "shape " + _listed([list(form) for form in accepted])


def _listed(items: list[Any]) -> str:
    words = [str(item) for item in items[:4]] + (["more"] if len(items) > 4 else [])
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
