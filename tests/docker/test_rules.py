"""Prometheus's configuration and alerts, as promtool reads them."""

from __future__ import annotations

import re
import subprocess
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import binom

from tests.docker.conftest import CONFIG, ROOT, RULES, near_config

CASES = Path(__file__).parent / "rules_test.yml"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


def run(*arguments: str | Path) -> str:
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_takes_the_configuration(promtool: str, tmp_path: Path) -> None:
    run(promtool, "check", "config", "--syntax-only", CONFIG)
    run(promtool, "check", "config", near_config(tmp_path, "127.0.0.1:8000", "key"))
    assert f"{len(ALERTS) + 4} rules found" in run(promtool, "check", "rules", RULES)


def test_alerts_fire_when_they_must_and_not_otherwise(promtool: str) -> None:
    run(promtool, "test", "rules", CASES)


def test_a_rule_that_is_wrong_fails_its_cases(promtool: str, tmp_path: Path) -> None:
    """The cases can fail: each number that an alert compares with matters to them."""
    rules, cases = RULES.read_text(), CASES.read_text().replace("../../docker/prometheus/", "")
    for right, wrong in [("> 9.21", "> 0.2"), ("> 0.01", "> 0.1"), (">= 5", ">= 1"), ("> 0.1\n", "> 1\n")]:
        assert rules.count(right) == 1
        (tmp_path / "rules.yml").write_text(rules.replace(right, wrong))
        (tmp_path / "rules_test.yml").write_text(cases)
        done = subprocess.run([promtool, "test", "rules", tmp_path / "rules_test.yml"], capture_output=True, timeout=60)
        assert done.returncode == 1, right


def test_each_alert_has_cases_in_which_it_fires_and_in_which_it_does_not() -> None:
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(ALERTS)
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(ALERTS)


def test_who_is_woken_finds_what_to_do() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    for name, alert in ALERTS.items():
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["runbook"] == f"docs/monitoring.md#{name.lower()}"
        assert f"\n### {name}\n" in page


BOUND = float(re.search(r"nats:1h > ([\d.]+)", ALERTS["DubioFlaggedAbovePromise"]["expr"])[1])


def nats(flagged_N: np.ndarray, rows_N: np.ndarray, alpha: float) -> np.ndarray:
    """What the rule records, of so many flags among so many rows."""
    kept_N = np.maximum(rows_N - flagged_N, 1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        found_N = flagged_N * np.log(flagged_N / (rows_N * alpha)) + kept_N * np.log(kept_N / (rows_N * (1 - alpha)))
    return np.where(flagged_N > rows_N * alpha, found_N, 0.0)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_chance_alone_seldom_raises_the_alert_on_flags(alpha: float) -> None:
    """However few rows there are: the flags that raise it, against the binomial law itself."""
    assert exp(-BOUND) < 1.001e-4
    for rows in [*range(1, 300), 1000, 10_000]:
        flagged_N = np.arange(rows + 1.0)
        due_N = flagged_N[nats(flagged_N, np.full(rows + 1, rows), alpha) > BOUND]
        chance = binom.sf(due_N.min(initial=rows + 1) - 1, rows, alpha)
        assert chance <= exp(-BOUND)
        if rows * alpha >= 50:  # and it sees what is twice the promise
            assert binom.sf(due_N.min() - 1, rows, 2 * alpha) > 0.95


@pytest.mark.parametrize("rows_a_minute", [1, 20])
def test_a_look_every_minute_at_the_last_hour_raises_it_less_than_once_in_10_000_hours(rows_a_minute: int) -> None:
    minutes, window = 60 * 60_000, np.ones(60)
    flagged_T = np.random.default_rng(0).binomial(rows_a_minute, 0.05, minutes)
    flagged_T = np.convolve(flagged_T, window, "valid")
    fires_T = nats(flagged_T, np.full(len(flagged_T), 60 * rows_a_minute), 0.05) > BOUND
    fires_T = fires_T[2:] & fires_T[1:-1] & fires_T[:-2]  # for two minutes
    begins = np.flatnonzero(fires_T[1:] & ~fires_T[:-1])
    episodes = len(begins[:1]) + int((np.diff(begins) > 60).sum())
    assert episodes < 6
