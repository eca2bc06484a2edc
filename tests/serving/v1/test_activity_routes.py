from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from dubio.serving.v1.activity_routes import ActivityReport

ACTIVITY = "/v1/models/bars/activity"
STRANGER = [[[200.0] * 8] * 8]


def read(client: httpx.Client) -> dict[str, Any]:
    answer = client.get(ACTIVITY)
    assert answer.status_code == 200, answer.text
    ActivityReport.model_validate_json(answer.content)
    return dict(answer.json())


def test_what_predicts_counts_and_nothing_else(
    serve: Callable, settings: Callable, checkpoint: Path, numbers_checkpoint: Path, bars: np.ndarray
) -> None:
    given = settings(models=(str(checkpoint), str(numbers_checkpoint)))
    with serve(given) as base, httpx.Client(base_url=base, timeout=30) as client:
        nothing = read(client)
        assert (nothing["requests"], nothing["flagged"], nothing["rows"], nothing["judged"]) == ({}, {}, 0, 0)
        assert set(nothing["seconds"]["counts"]) == {0}
        for path, body in [
            ("/v1/predict", {"instances": bars[:3].tolist()}),
            ("/v1/models/bars/predict", {"instances": [STRANGER, STRANGER]}),
            ("/v1/models/bars/predict", {"instances": bars[:4].tolist(), "parameters": {"samples": 4}}),  # no p-value
            ("/v1/models/bars:predict", {"instances": bars[:5].tolist()}),
            ("/v1/models/bars/predict", {"instances": [[1, 2]]}),
            ("/v1/models/row/predict", {"instances": [[1, 2, 3, 4, 5]]}),
        ]:
            client.post(path, json=body)
        inputs = [{"name": "input", "datatype": "FP32", "shape": [6, 1, 8, 8], "data": bars[:6].ravel().tolist()}]
        client.post("/v2/models/bars/infer", json={"inputs": inputs}).raise_for_status()
        for path in ("/v1/models/bars", "/v1/models/bars/drift", "/v2/models/bars"):
            client.get(path).raise_for_status()
        known = read(client)
        assert known["model"] == {"name": "bars", "version": "1"}
        assert known["requests"] == {"200": 5, "422": 1}
        assert sum(known["seconds"]["counts"]) == 6
        assert len(known["seconds"]["counts"]) == len(known["seconds"]["bounds"]) + 1
        assert (known["rows"], known["judged"]) == (20, 16)
        assert known["flagged"]["out_of_range"] == 2
        assert known["time"] > nothing["time"]
        assert client.get("/v1/models/nobody/activity").status_code == 404
