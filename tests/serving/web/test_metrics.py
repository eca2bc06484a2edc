from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.parser import text_string_to_metric_families


def test_requests_are_counted_and_strange_names_are_no_labels(
    serve: Callable, settings: Callable, checkpoint: Path
) -> None:
    route = "/v1/models/{name}/predict"
    with serve(settings(models=(str(checkpoint),))) as base:
        for _ in range(2):
            httpx.post(f"{base}/v1/models/bars/predict", json={"instances": [[0] * 64, [1000] * 64]})
        httpx.post(f"{base}/v1/models/bars/predict", content=b"{")
        for i in range(20):
            httpx.post(f"{base}/v1/models/nobody-{i}/predict", json={})
            httpx.get(f"{base}/made/up/{i}")
        scraped = httpx.get(f"{base}/metrics")
        text = scraped.text

    assert scraped.headers["content-type"] == CONTENT_TYPE_LATEST
    assert "nobody" not in text
    assert "made" not in text
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    def value(name: str, **labels: str) -> float:
        return samples[(name, *sorted(labels.items()))]

    assert value("dubio_requests_total", route=route, model="bars", version="1", status="200") == 2
    assert value("dubio_requests_total", route=route, model="bars", version="1", status="400") == 1
    assert value("dubio_requests_total", route=route, model="", version="", status="404") == 20
    assert value("dubio_requests_total", route="unmatched", model="", version="", status="404") == 20
    assert value("dubio_request_seconds_count", route=route, model="bars", version="1") == 3
    assert value("dubio_rows_total", model="bars", version="1") == 4
    assert value("dubio_mutual_information_nats_count", model="bars", version="1") == 4
    assert value("dubio_flagged_total", model="bars", version="1", reason="out_of_range") == 2


def test_what_is_under_way_can_be_seen(command: Any, gated_checkpoint: Path, gate: Path) -> None:
    arguments = (str(gated_checkpoint), "--trusted", "gated_networks")
    environment = {"PYTHONPATH": str(gated_checkpoint.parent), "DUBIO_TEST_GATE": str(gate)}

    def gauges(url: str) -> dict[str, float]:
        values = {}
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text):
            if family.type == "gauge":
                values.update({sample.name: sample.value for sample in family.samples})
        return values

    with command.started(*arguments, **environment) as service:
        gate.touch()
        body = {"instances": [[1, 2, 3, 4, 5]] * 3}
        asking = threading.Thread(target=lambda: httpx.post(f"{service.url}/v1/predict", json=body, timeout=60))
        asking.start()
        while not gate.with_suffix(".waiting").exists():
            time.sleep(0.01)
        busy = gauges(service.url)
        gate.unlink()
        asking.join()
        idle = gauges(service.url)
    # The scrape is a request, too.
    assert (busy["dubio_in_flight_requests"], busy["dubio_waiting_rows"], busy["dubio_waiting_bytes"]) == (2, 3, 60)
    assert (idle["dubio_in_flight_requests"], idle["dubio_waiting_rows"], idle["dubio_waiting_bytes"]) == (1, 0, 0)


def test_without_keys_it_asks_for_none_and_minds_none(client: httpx.Client) -> None:
    """As the Prometheus of docker-compose.yml sends one, where none was given, too."""
    key = (Path(__file__).parents[3] / "docker" / "prometheus" / "no-key.txt").read_text().strip()
    assert client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == 200
