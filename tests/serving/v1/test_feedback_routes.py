from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from dubio.serving.v1.feedback_schema import FeedbackTaken, Quality
from tests.serving.conftest import draw_bars

WAIT = {"Dubio-Store": "wait"}


def test_true_labels_make_the_quality_of_a_version(
    serve: Callable, settings: Callable, checkpoint: Path, tmp_path: Path
) -> None:
    x, y = draw_bars(30, 11)
    given = settings(models=(f"bars={checkpoint}",), store=tmp_path / "s", store_share=1)
    with serve(given) as base, httpx.Client(base_url=base, timeout=30) as client:
        answer = client.post("/v1/predict", json={"instances": x.tolist()}, headers={**WAIT, "X-Request-Id": "known"})
        assert answer.headers["dubio-stored"] == "true"
        said = [row["mc"]["label"] for row in answer.json()["predictions"]]
        flagged = [row["ood"]["flagged"] for row in answer.json()["predictions"]]
        truth = [f"class-{label}" for label in y]
        labels = [{"request_id": "known", "row": row, "label": label} for row, label in enumerate(truth)]
        labels.append({"request_id": "never-asked", "label": "class-0"})
        taken = client.post("/v1/feedback", json={"labels": labels})
        assert FeedbackTaken.model_validate_json(taken.content) == FeedbackTaken(joined=30, not_stored=[30])
        quality = Quality.model_validate_json(client.get("/v1/models/bars/quality").content)
        [version] = quality.versions
        right = [one == other for one, other, is_it in zip(said, truth, flagged, strict=True) if not is_it]
        assert version.accuracy.not_flagged.rows == len(right)
        assert version.accuracy.not_flagged.value == pytest.approx(sum(right) / len(right))
        expected = sum(one == other for one, other in zip(said, truth, strict=True)) / 30
        assert version.accuracy.all.value == pytest.approx(expected)
        assert version.accuracy.all.low <= expected <= version.accuracy.all.high


def test_what_is_wrong_is_refused(serve: Callable, settings: Callable, checkpoint: Path, tmp_path: Path) -> None:
    with (
        serve(settings(models=(f"bars={checkpoint}",), store=tmp_path / "s")) as base,
        httpx.Client(base_url=base, timeout=30) as client,
    ):
        for body, status, complaint in [
            ({"labels": []}, 422, "`labels`"),
            ({"labels": [{"request_id": "a"}]}, 422, "`labels[0].label`, but it is missing"),
            ({"labels": [{"request_id": "a b", "label": "x"}]}, 422, "`labels[0].request_id`"),
            ({"labels": [{"request_id": "a", "label": "x", "row": -1}]}, 422, "`labels[0].row`"),
            ({"labels": [{"request_id": "a", "label": "x", "row": True}]}, 422, "`labels[0].row`"),
            ({"labels": [{"request_id": "a", "label": "x"}] * 1001}, 422, "`labels`"),
            ([], 422, "an object"),
        ]:
            answer = client.post("/v1/feedback", json=body)
            assert answer.status_code == status, body
            assert complaint in answer.json()["detail"]
        assert client.get("/v1/models/none/quality").status_code == 404
        assert client.get("/v1/models/bars/quality").json()["versions"] == []
