from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from dubio.models.explanation import ColumnContribution, Explanation, Neighbour
from dubio.serving.v1.schema import OutOfDistribution
from dubio.serving.wire.explanation import to_data_url, to_plain

VERDICT = {"flagged": True, "p_value": 0.01, "level": 0.04, "reason": "unfamiliar"}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_read_back_as_it_was(channels: int):
    pixels_CHW = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    head, data = to_data_url(pixels_CHW).split(",")
    assert head == "data:image/png;base64"
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    np.testing.assert_array_equal(read, pixels_CHW[0] if channels == 1 else pixels_CHW.transpose(1, 2, 0))


def test_every_part_is_one_of_the_schema_and_of_json():
    pixels_CHW = np.zeros((1, 2, 2), dtype=np.uint8)
    explanation = Explanation(
        checkpoint=2,
        scores={"neighbours": 0.25},
        squared_distance=3.0,
        columns=(ColumnContribution("age", 4.0), ColumnContribution("city", -1.0)),
        neighbours=(Neighbour(7, 0.5, None, pixels_CHW), Neighbour(9, 0.75, "my card", None)),
    )
    plain = json.loads(json.dumps(to_plain(explanation)))
    OutOfDistribution.model_validate({**VERDICT, **plain}, strict=True)
    assert plain["columns"] == [{"name": "age", "contribution": 4.0}, {"name": "city", "contribution": -1.0}]
    assert [near["row"] for near in plain["neighbours"]] == [7, 9]
    assert [near["text"] for near in plain["neighbours"]] == [None, "my card"]
    assert [near["thumbnail"] is None for near in plain["neighbours"]] == [False, True]


def test_what_is_not_known_is_null():
    assert set(to_plain(Explanation()).values()) == {None}
