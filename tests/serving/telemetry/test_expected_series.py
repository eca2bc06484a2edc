from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dubio.models import Predictor
from dubio.serving.repository.registry import ServedModel
from dubio.serving.telemetry.definitions import FAMILIES
from dubio.serving.telemetry.expected_series import ExpectedSeries, RouteAnswers
from dubio.serving.telemetry.metrics import Metrics

ALARMS = [  # those of docker/prometheus/rules.yml, and the most usual one
    ("dubio_refused_total", {"model": "bars", "version": "1", "reason": "overloaded"}),
    ("dubio_refused_total", {"model": "bars", "version": "1", "reason": "internal_error"}),
    ("dubio_refused_total", {"model": "", "version": "", "reason": "unauthorized"}),
    ("dubio_refused_total", {"model": "", "version": "", "reason": "not_found"}),
    ("dubio_refused_total", {"model": "", "version": "", "reason": "malformed_http"}),
    ("dubio_flagged_total", {"model": "bars", "version": "1", "reason": "unfamiliar"}),
    ("dubio_flagged_total", {"model": "bars", "version": "1", "reason": "uncertain"}),
    ("dubio_flagged_total", {"model": "bars", "version": "1", "reason": "out_of_range"}),
    ("dubio_rows_total", {"model": "bars", "version": "1"}),
    ("dubio_p_value_count", {"model": "bars", "version": "1"}),
    ("dubio_p_value_bucket", {"model": "bars", "version": "1", "le": "0.05"}),
    ("dubio_queue_seconds_count", {"model": "bars", "version": "1"}),
    ("dubio_request_seconds_count", {"route": "/v1/predict", "model": "bars", "version": "1"}),
    ("dubio_requests_total", {"route": "/v1/predict", "model": "bars", "version": "1", "status": "500"}),
    ("dubio_requests_total", {"route": "/v1/predict", "model": "bars", "version": "1", "status": "503"}),
    ("dubio_requests_total", {"route": "/v2/models/{name}/infer", "model": "bars", "version": "1", "status": "200"}),
    ("dubio_requests_total", {"route": "/v1/models", "model": "", "version": "", "status": "200"}),
    ("dubio_access_log_lines_lost_total", {}),
]


def scrape(url: str) -> dict[tuple[Any, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
        for sample in family.samples
    }


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_what_an_alarm_is_for_is_there_before_it_happens(command: Any, checkpoint: Path, workers: int) -> None:
    with command.started(f"bars={checkpoint}", "--workers", str(workers)) as service:
        before = scrape(service.url)
        assert {before[(name, *sorted(labels.items()))] for name, labels in ALARMS} == {0}
        body = {"instances": [[[[500.0] * 8] * 8]] * 3}
        assert httpx.post(f"{service.url}/v1/predict", json=body).status_code == 200
        assert httpx.get(f"{service.url}/nothing").status_code == 404
        after = scrape(service.url)
    counters = {key for key in after if key[0].endswith("_total") and key[0].startswith("dubio_")}
    assert counters <= set(before)
    reason = ("dubio_flagged_total", ("model", "bars"), ("reason", "out_of_range"), ("version", "1"))
    assert after[reason] - before[reason] == 3  # what a rate sees


def test_a_models_series_come_and_go_with_it_unless_they_count(predictor: Predictor) -> None:
    metrics, loaded = Metrics(), [ServedModel("m", "1", predictor)]
    answers = [RouteAnswers("/predict", ["200"], predicts=True), RouteAnswers("/about", ["200"], predicts=False)]
    metrics.expect(ExpectedSeries(lambda: loaded, answers, ["overloaded"]))

    def labels(name: str) -> set[tuple[str, ...]]:
        [metric] = [metric for metric in metrics.collect() if metric.name == name]
        return {tuple(sample.labels.values()) for sample in metric.samples}

    assert labels("dubio_requests") == {
        ("/predict", "", "", "200"),
        ("/predict", "m", "1", "200"),
        ("/about", "", "", "200"),
        ("unmatched", "", "", "404"),
    }
    assert ("m", "1", "overloaded") in labels("dubio_refused")
    assert labels("dubio_rows") == {("m", "1")}
    metrics.count_prediction("m", "1", predictor.predict([[[[1.0] * 8] * 8]]))
    loaded[:] = [ServedModel("m", "2", predictor)]
    assert labels("dubio_rows") == {("m", "1"), ("m", "2")}
    assert ("m", "1", "overloaded") not in labels("dubio_refused")


def test_every_metric_is_expected(predictor: Predictor) -> None:
    models: Callable[[], list[ServedModel]] = lambda: [ServedModel("m", "1", predictor)]  # noqa: E731
    routes, shadows = [RouteAnswers("/", ["200"], True)], lambda: [("m", "2")]
    expected = {family for family, _ in ExpectedSeries(models, routes, ["overloaded"], shadows)}
    assert expected == set(FAMILIES)
    for family, labels in ExpectedSeries(models, [RouteAnswers("/", ["200"], True)], ["overloaded"]):
        assert len(labels) == len(family.labels)
