from __future__ import annotations

import itertools
import uuid
from typing import Any

import numpy as np
import orjson
import pytest
import sqlalchemy as sa
import torch
from scipy.stats import beta
from torchmetrics.functional.classification import binary_calibration_error

from dubio.serving.store import quality
from dubio.serving.store.database import Database
from dubio.serving.store.tables import answers, signatures


def insert(url: sa.URL, *rows: dict[str, Any]) -> None:
    """Rows of a model of the classes a and b, whose fields are given where they matter."""
    database = Database(url)
    database.upgrade()
    usual = {
        "created_ms": 1,
        "request_id": "r",
        "row_number": 0,
        "model": "m",
        "version": "1",
        "signature": "s",
        "kept": "flagged",
        "share": 1.0,
        "bytes": 1,
        "input_form": "hash",
        "input_sha256": "",
        "label": "a",
        "probability": 0.9,
        "samples": 2,
        "mc_label": "a",
        "mc_probability": 0.8,
        "flagged": True,
        "arrays": orjson.dumps({"label_set": ["a"]}),
        "state": "open",
        "true_label": None,
        "review_label": None,
    }
    with database.writing() as connection:
        connection.execute(sa.insert(signatures).values(digest="s", content='{"classes":["a","b"]}'))
        connection.execute(sa.insert(answers), [{**usual, "id": uuid.uuid4().hex, **row} for row in rows])
    database.forget_connections()


def measured(url: sa.URL) -> dict[str, Any]:
    database = Database(url)
    with database.reading() as connection:
        assert quality.stored_versions(connection, "m") == ["1"]
        [version] = quality.measure(connection, "m", ["1"])
    database.forget_connections()
    return version


def exact(count: int, rows: int, tail: float) -> list[float]:
    return [beta.ppf(tail, count, rows - count + 1), beta.ppf(1 - tail, count + 1, rows - count)]


def test_the_figures_are_those_of_the_rows(url: sa.URL) -> None:
    sampled = {"kept": "sampled", "share": 0.1, "flagged": False}
    right, wrong = {"true_label": "a"}, {"true_label": "b"}
    insert(
        url,
        *[{**sampled, **right} for _ in range(6)],
        *[{**sampled, **wrong} for _ in range(2)],
        *[sampled for _ in range(12)],  # nobody said anything: 200 rows that were not flagged in all
        *[right for _ in range(3)],
        *[{"review_label": "b", "state": "labelled"} for _ in range(4)],
        {"review_label": "new", "state": "labelled"},
        *[{"state": "not_for_us"} for _ in range(2)],
        *[{} for _ in range(40)],  # 50 flagged rows in all
    )
    found = measured(url)
    assert found["rows"] == 18
    assert found["accuracy"]["not_flagged"]["value"] == 0.75
    assert found["accuracy"]["not_flagged"]["rows"] == 8
    low, high = exact(6, 8, 0.025)
    assert found["accuracy"]["not_flagged"]["low"] == pytest.approx(low)
    assert found["accuracy"]["not_flagged"]["high"] == pytest.approx(high)
    assert found["accuracy"]["flagged"]["value"] == 0.3
    assert found["accuracy"]["all"]["value"] == pytest.approx(0.8 * 0.75 + 0.2 * 0.3)
    bounds = zip(exact(6, 8, 0.0125), exact(3, 10, 0.0125), strict=True)
    low, high = (0.8 * other + 0.2 * flagged for other, flagged in bounds)
    assert found["accuracy"]["all"]["low"] == pytest.approx(low)
    assert found["accuracy"]["all"]["high"] == pytest.approx(high)
    assert found["deterministic_accuracy"]["not_flagged"]["value"] == 0.75
    assert found["calibration_error"]["value"] == pytest.approx(0.05)  # 0.8 said, 0.75 right
    assert found["calibration_error"]["low"] - 1e-9 <= 0.05 <= found["calibration_error"]["high"] + 1e-9
    assert found["label_set_coverage"] == found["accuracy"]["not_flagged"]
    assert (found["flag_precision"]["value"], found["flag_precision"]["rows"]) == (0.7, 10)
    assert found["ood_among_flagged"]["value"] == 0.3


def test_where_nothing_was_said_nothing_is_known(url: sa.URL) -> None:
    insert(url, {}, {"flagged": None, "mc_label": None, "mc_probability": None})
    nothing = {"value": None, "low": None, "high": None, "rows": 0}
    found = measured(url)
    assert found["rows"] == 0
    assert found["accuracy"] == dict.fromkeys(["flagged", "not_flagged", "all"], nothing)
    assert found["calibration_error"] == found["flag_precision"] == found["label_set_coverage"] == nothing


def test_a_reviewers_word_goes_before_that_of_feedback(url: sa.URL) -> None:
    insert(
        url,
        {"review_label": "a", "state": "labelled", "true_label": "b"},
        {"state": "not_for_us", "true_label": "a"},
    )
    found = measured(url)
    assert found["rows"] == 2
    assert found["accuracy"]["flagged"]["value"] == 0.5
    assert found["ood_among_flagged"]["value"] == 0.5
    assert found["flag_precision"]["value"] == 0.5


def test_without_a_sample_there_is_no_accuracy_over_all(url: sa.URL) -> None:
    insert(url, {"true_label": "a"}, {"kept": "asked", "flagged": False, "true_label": "a"})
    found = measured(url)["accuracy"]
    assert (found["flagged"]["value"], found["not_flagged"]["value"], found["all"]["value"]) == (1, 1, None)


def test_rows_without_members_tell_by_their_deterministic_answer(url: sa.URL) -> None:
    none = {"mc_label": None, "mc_probability": None, "flagged": None, "arrays": orjson.dumps({"label_set": None})}
    insert(url, {**none, "true_label": "a"}, {**none, "true_label": "b"})
    found = measured(url)
    assert found["accuracy"]["not_flagged"]["value"] == 0.5
    assert found["calibration_error"]["value"] == pytest.approx(0.4)
    assert found["label_set_coverage"]["rows"] == 0


def test_the_calibration_error_is_that_of_its_definition() -> None:
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0, 1, 500)
    correct = draw.uniform(0, 1, 500) < confidence**2
    edges, expected = np.linspace(0, 1, quality.BINS + 1), 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    found = quality.calibration_error(confidence, correct)
    assert found["value"] == pytest.approx(expected)
    reference = binary_calibration_error(torch.from_numpy(confidence), torch.from_numpy(correct), quality.BINS)
    assert found["value"] == pytest.approx(float(reference))
    assert found["low"] < found["value"] < found["high"]
