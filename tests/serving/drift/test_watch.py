"""The evidence that the service shows: the law of its alarm by simulation, and states that no stream led to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from dubio.serving.drift.subject import Subject
from dubio.serving.drift.watch import Rows, Watch
from dubio.serving.errors import InvalidState

NOW = 1_800_000_000.0


def test_familiar_rows_raise_no_more_false_alarms_than_is_said(subject: Subject, draw_rows: Callable) -> None:
    generator, streams = np.random.default_rng(0), 50
    small = replace(subject, rows=200)
    alarms = sum(
        Watch.begin(small, 0.05).observe([draw_rows(generator, 1500, 200)], NOW).alarm is not None
        for _ in range(streams)
    )
    said = small.false_alarm(0.05)
    assert said == pytest.approx(0.15)
    assert binomtest(alarms, streams, said, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize(("strangers", "at_most"), [(0.1, 160), (0.2, 64)])
def test_strangers_raise_it_soon(subject: Subject, draw_rows: Callable, strangers: float, at_most: int) -> None:
    generator = np.random.default_rng(1)
    delays = []
    for _ in range(15):
        watch = Watch.begin(subject, 0.05).observe([draw_rows(generator, 600, strangers=strangers)], NOW)
        delays.append(math.inf if watch.alarm is None else watch.alarm.rows)
    assert np.median(delays) <= at_most


def test_the_evidence_is_the_mean_of_both_and_the_alarm_stays(subject: Subject, draw_rows: Callable) -> None:
    generator = np.random.default_rng(2)
    strange, familiar = draw_rows(generator, 100, strangers=0.9), draw_rows(generator, 4000)
    begun = Watch.begin(subject, 0.01)
    assert (begun.e_value, begun.level, begun.rows, begun.since) == (1, 100, 0, None)
    watch = begun.observe([strange], NOW)
    assert watch.alarm is not None
    assert watch.alarm.time == watch.since == NOW
    assert watch.alarm.rows in (32, 64)
    assert watch.e_value == (watch.flags.e_value + watch.p_values.e_value) / 2 > watch.level
    assert watch.flagged == strange.flagged.sum()
    later = watch.observe([familiar], NOW + 60)
    assert (later.alarm, later.since, later.rows) == (watch.alarm, NOW, 4100)
    assert begun.rows == 0


def test_of_an_ensemble_flags_alone_are_evidence(subject: Subject, draw_rows: Callable) -> None:
    watch = Watch.begin(replace(subject, rows=None), 0.01)
    watch = watch.observe([draw_rows(np.random.default_rng(3), 100, strangers=0.5)], NOW)
    assert watch.p_values is None
    assert watch.e_value == watch.flags.e_value
    assert Watch.load(watch.subject, 0.01, watch.dump()) == watch


@pytest.mark.parametrize("strangers", [0.0, 0.5])
def test_a_restart_goes_on_with_the_same_numbers(subject: Subject, draw_rows: Callable, strangers: float) -> None:
    rows = draw_rows(np.random.default_rng(4), 320, strangers=strangers)
    whole = Watch.begin(subject, 0.01).observe([rows], NOW)
    first, second = (Rows(rows.p_values[part], rows.flagged[part]) for part in (slice(0, 128), slice(128, None)))
    parts = Watch.begin(subject, 0.01).observe([first], NOW)
    parts = Watch.load(subject, 0.01, parts.dump()).observe([second], NOW)
    assert parts == whole
    assert (whole.alarm is not None) == (strangers > 0)
    assert Watch.load(subject, 0.01, Watch.begin(subject, 0.01).dump()) == Watch.begin(subject, 0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format"),
        ({"extra": 1}, "extra"),
        ({"flagged": -1}, "flagged"),
        ({"flagged": 65}, "counts"),
        ({"flagged": 1.5}, "flagged"),
        ({"since": None}, "counts"),
        ({"since": "yesterday"}, "since"),
        ({"alarm": {"time": NOW, "rows": 65}}, "counts"),
        ({"alarm": {"time": NOW}}, "alarm.rows"),
        ({"model": "other"}, "other weights"),
        ({"version": "2"}, "other weights"),
        ({"checkpoint": "d" * 64}, "other weights"),
        ({"flags": {}}, "state of one of"),
        ({"flags": "all"}, "flags"),
        ({"p_values": None}, "calibration"),
    ],
)
def test_a_state_that_no_stream_led_to_is_refused(
    subject: Subject, draw_rows: Callable, change: dict[str, Any], message: str
) -> None:
    state = json.loads(Watch.begin(subject, 0.01).observe([draw_rows(np.random.default_rng(5), 64)], NOW).dump())
    with pytest.raises(InvalidState, match=message):
        Watch.load(subject, 0.01, json.dumps({**state, **change}).encode())


def test_evidence_of_other_terms_is_refused(subject: Subject, draw_rows: Callable) -> None:
    state = Watch.begin(subject, 0.01).observe([draw_rows(np.random.default_rng(6), 64)], NOW).dump()
    for other, epsilon in ((subject, 0.02), (replace(subject, rows=999), 0.01), (replace(subject, alpha=0.1), 0.01)):
        with pytest.raises(InvalidState, match="another"):
            Watch.load(other, epsilon, state)
    swapped = json.loads(state)
    swapped["flags"], swapped["p_values"] = swapped["p_values"], swapped["flags"]
    with pytest.raises(InvalidState, match="another"):
        Watch.load(subject, 0.01, json.dumps(swapped).encode())
    for text in (b"", state[:100], b"[]", b"\xff\xfe", b"null"):
        with pytest.raises(InvalidState):
            Watch.load(subject, 0.01, text)
