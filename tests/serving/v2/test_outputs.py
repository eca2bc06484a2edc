from __future__ import annotations

import numpy as np

from dubio.models import Predictor
from dubio.serving.v2.outputs import OUTPUTS, classify


def test_each_output_has_its_shape_and_type(predictor: Predictor, bars: np.ndarray) -> None:
    prediction = predictor.predict(bars[:3])
    kinds = {"FP32": np.float32, "FP64": np.float64, "BOOL": np.bool_, "INT32": np.int32}
    for output in OUTPUTS.values():
        values = output.read(prediction, predictor.classes)
        assert values is not None
        if output.datatype == "BYTES":
            assert values == [predictor.classes[index] for index in prediction.label]
        else:
            assert values.dtype == kinds[output.datatype]
            assert list(values.shape) == output.shape(3, 4)


def test_without_the_work_an_output_cannot_be_read_by_mistake(predictor: Predictor, bars: np.ndarray) -> None:
    for output in OUTPUTS.values():
        prediction = predictor.predict(bars[:2], work=output.work)
        assert output.read(prediction, predictor.classes) is not None


def test_the_largest_come_first_and_ties_in_order() -> None:
    values = np.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4]], np.float32)
    assert classify(values, ("a", "b", "c"), count=2) == [
        ["0.500000:1:b", "0.400000:2:c"],
        ["0.400000:2:c", "0.300000:0:a"],
    ]
