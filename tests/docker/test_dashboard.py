"""What the dashboard and the alerts ask Prometheus, asked of a real one that scrapes a real service."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from dubio.serving.drift.metrics import ALARM, E_VALUE
from dubio.serving.telemetry.definitions import FAMILIES
from dubio.serving.telemetry.gauges import GAUGES
from dubio.serving.telemetry.model_gauges import MODEL_GAUGES
from tests.docker.conftest import CONFIG, ROOT, RULES, Prometheus, near_config, started
from tests.serving.command import Command

# Of shadows, which the service of these tests has none of.
OF_SHADOWS = {"dubio_shadow_disagreements_total", "dubio_shadow_rows_total", "dubio_shadow_skipped_rows_total"}

GRAFANA = ROOT / "docker" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "dubio.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
RULE_LIST = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
METRIC = re.compile(r"(?<![\w:])(?:dubio|process)_\w+")
RECORDED = re.compile(r"\bdubio:[\w:]+")
KEYS = "infer:key-of-a-caller-0123 metrics:key-of-prometheus-0123"


def exposed() -> set[str]:
    """Every metric of the service, as Prometheus names it."""
    names = {gauge.name for gauge in (*GAUGES, *MODEL_GAUGES)}
    for family in FAMILIES:
        endings = ("_bucket", "_sum", "_count") if family.bounds else ("_total",)
        names |= {family.name + ending for ending in endings}
    return names | {E_VALUE, ALARM, "process_resident_memory_bytes", "process_cpu_seconds_total"}


def filled_in(query: str) -> str:
    """A panel's query as Grafana sends it when all models are shown."""
    return query.replace("$model", ".*").replace("$__rate_interval", "5m")


def test_what_is_asked_is_exposed() -> None:
    asked = {name for text in (*QUERIES, *(rule["expr"] for rule in RULE_LIST)) for name in METRIC.findall(text)}
    assert asked <= exposed()
    recorded = {rule["record"] for rule in RULE_LIST if "record" in rule}
    assert {name for query in QUERIES for name in RECORDED.findall(query)} <= recorded


def test_panels_have_their_places_and_say_what_they_show() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + column, place["y"] + row) for column in range(place["w"]) for row in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    for panel in PANELS:
        assert panel["description"], panel["title"]
        assert f"**{panel['title']}**" in page


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    [source] = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "dubio.yml").read_text())["providers"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert "prometheus" in services
    asked = [panel["datasource"] for panel in PANELS] + [DASHBOARD["templating"]["list"][0]["datasource"]]
    assert all(each == {"type": "prometheus", "uid": source["uid"]} for each in asked)
    folder = provider["options"]["path"]
    assert f"./docker/grafana/dashboards:{folder}:ro" in services["grafana"]["volumes"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/dubio.json"


@pytest.fixture(scope="module")
def watched(command: Command, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen a service before it was used and after."""
    folder = tmp_path_factory.mktemp("prometheus")
    with command.started(f"bars={checkpoint}", DUBIO_API_KEYS=KEYS) as service:
        config = near_config(folder, service.url.removeprefix("http://"), "key-of-prometheus-0123")
        with started(config, folder) as prometheus:
            prometheus.wait_for("sum_over_time(up[5m]) > 1")
            headers = {"Authorization": "Bearer key-of-a-caller-0123"}
            for rows in ([[[5.0] * 8] * 8], [[[500.0] * 8] * 8]):
                body = {"instances": [rows] * 3}
                httpx.post(f"{service.url}/v1/predict", json=body, headers=headers).raise_for_status()
            assert httpx.post(f"{service.url}/v1/predict", json={}, headers=headers).status_code == 422
            prometheus.wait_for('increase(dubio_refused_total{reason="invalid_request", model="bars"}[5m]) > 0')
            prometheus.wait_for("dubio:flagged_rows:increase1h > 0")
            yield prometheus


def test_each_panel_shows_something_of_a_service_that_was_used(watched: Prometheus) -> None:
    for query in QUERIES:
        if not OF_SHADOWS & set(METRIC.findall(query)):
            values = watched.wait_for(filled_in(query))
            assert all(map(math.isfinite, values)), (query, values)


def test_prometheus_evaluates_each_rule(watched: Prometheus) -> None:
    rules = [rule for group in watched.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(RULE_LIST)
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []
    [judged], [flagged] = (watched.values(f"dubio:{what}_rows:increase1h") for what in ("judged", "flagged"))
    assert 3 <= flagged <= judged  # more than there were, as Prometheus extrapolates over what it did not see
    assert watched.wait_for("dubio:promised_flag_rate") == [0.05]


def test_the_key_of_the_metrics_is_sent(watched: Prometheus) -> None:
    watched.wait_for("up > 0")
    [target] = watched.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    [scrape] = yaml.safe_load(CONFIG.read_text())["scrape_configs"]
    assert scrape["authorization"] == {"credentials_file": "/run/secrets/metrics_key"}
