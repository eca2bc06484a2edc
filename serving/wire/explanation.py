"""An explanation as plain data, the same over every protocol."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # which would bring torch along
    from dubio.models.explanation import Explanation


def to_plain(explanation: Explanation) -> dict[str, Any]:
    """What `schema.Explanation` describes; what is not known is None."""
    columns, neighbours = explanation.columns, explanation.neighbours
    return {
        "checkpoint": explanation.checkpoint,
        "scores": explanation.scores,
        "squared_distance": explanation.squared_distance,
        "columns": None if columns is None else [vars(each) for each in columns],
        "neighbours": None
        if neighbours is None
        else [
            {
                "row": each.row,
                "distance": each.distance,
                "text": each.text,
                "thumbnail": None if each.thumbnail_CHW is None else to_data_url(each.thumbnail_CHW),
            }
            for each in neighbours
        ],
    }


def to_data_url(pixels_CHW: NDArray[np.uint8]) -> str:
    """A picture of one or three channels as the data URL of a PNG file."""
    from PIL import Image

    picture = Image.fromarray(pixels_CHW[0] if len(pixels_CHW) == 1 else np.moveaxis(pixels_CHW, 0, -1))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
