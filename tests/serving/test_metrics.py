from __future__ import annotations

import numpy as np

from models import Predictor
from serving.metrics import Metrics


def test_predictions_are_counted_by_what_they_say(predictor: Predictor, bars: np.ndarray) -> None:
    metrics = Metrics()
    x = np.concatenate([bars, np.full((3, 1, 8, 8), 500, dtype=np.float32)])
    prediction = predictor.predict(x)
    metrics.count_prediction("m", prediction)
    metrics.count_prediction("m", predictor.predict(x, samples=2))  # rows without a verdict flag nobody

    value = metrics.registry.get_sample_value
    assert value("dubio_rows_total", {"model": "m"}) == 2 * len(x)
    assert value("dubio_epistemic_nats_count", {"model": "m"}) == 2 * len(x)
    for reason in ("out_of_range", "uncertain", "unfamiliar"):
        counted = value("dubio_flagged_total", {"model": "m", "reason": reason}) or 0
        assert counted == prediction.reasons.count(reason)


def test_two_services_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.count_request(route="/", model="", status=200, seconds=0.1)
    assert b'route="/"' in one.render()
    assert b'route="/"' not in other.render()
