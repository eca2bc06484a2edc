from __future__ import annotations

from pathlib import Path

import numpy as np

from dubio.models import Predictor
from dubio.serving.telemetry import definitions
from dubio.serving.telemetry.activity import Activity
from dubio.serving.telemetry.metrics import Metrics

ROUTES = {"/predict", "/infer"}
BUCKETS = definitions.REQUEST_SECONDS.numbers


def counted(family: definitions.Family, *labels: str, of: dict[int, float]) -> tuple:
    numbers = np.zeros(family.numbers)
    for place, value in of.items():
        numbers[place] = value
    return (family.name, labels), numbers


def test_routes_are_added_up_and_other_models_versions_and_routes_are_left_out() -> None:
    totals = dict(
        [
            counted(definitions.REQUESTS, "/predict", "a", "1", "200", of={0: 3}),
            counted(definitions.REQUESTS, "/infer", "a", "1", "200", of={0: 4}),
            counted(definitions.REQUESTS, "/infer", "a", "1", "503", of={0: 1}),
            counted(definitions.REQUESTS, "/card", "a", "1", "200", of={0: 90}),
            counted(definitions.REQUESTS, "/infer", "a", "2", "200", of={0: 91}),
            counted(definitions.REQUEST_SECONDS, "/predict", "a", "1", of={0: 3, BUCKETS - 1: 0.001}),
            counted(definitions.REQUEST_SECONDS, "/infer", "a", "1", of={0: 1, BUCKETS - 2: 4, BUCKETS - 1: 200.0}),
            counted(definitions.REQUEST_SECONDS, "/infer", "b", "1", of={0: 92}),
            counted(definitions.ROWS, "a", "1", of={0: 70}),
            counted(definitions.P_VALUE, "a", "1", of={1: 5, 9: 60, definitions.P_VALUE.numbers - 1: 31.5}),
            counted(definitions.FLAGGED, "a", "1", "unfamiliar", of={0: 6}),
            counted(definitions.FLAGGED, "a", "2", "unfamiliar", of={0: 93}),
        ]
    )
    assert Activity.of("a", "1", totals, ROUTES) == Activity(
        requests={"200": 7, "503": 1},
        seconds=[4, *[0] * (BUCKETS - 3), 4],
        rows=70,
        judged=65,
        flagged={"unfamiliar": 6},
    )
    assert Activity.of("c", "1", totals, ROUTES) == Activity({}, [0] * (BUCKETS - 1), 0, 0, {})


def test_workers_count_together(tmp_path: Path, predictor: Predictor, bars: np.ndarray) -> None:
    first, second = Metrics(tmp_path, 0), Metrics(tmp_path, 1)
    prediction = predictor.predict(bars)
    for metrics in (first, first, second):
        metrics.count_prediction("bars", "1", prediction)
    known = [Activity.of("bars", "1", metrics.totals(), ROUTES) for metrics in (first, second)]
    assert known[0] == known[1]
    assert (known[0].rows, known[0].judged) == (180, 180)
    assert sum(known[0].flagged.values()) == 3 * int(prediction.flagged.sum())
