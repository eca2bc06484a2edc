from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from dubio.serving.telemetry.definitions import FAMILIES, LOST_LINES, STORE_DROPPED, STORE_WRITTEN, Family
from dubio.serving.telemetry.gauges import GAUGES
from dubio.serving.telemetry.model_gauges import MODEL_GAUGES

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_labels_and_buckets_are_proper(family: Family) -> None:
    assert re.fullmatch(r"dubio_[a-z_]+", family.name)
    assert family.help.endswith(".")
    assert {"model", "version"} <= set(family.labels) or family in (LOST_LINES, STORE_WRITTEN, STORE_DROPPED)
    assert all(one < other for one, other in pairwise(family.bounds))


def test_operators_find_every_metric_in_the_documentation() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for family in FAMILIES:
        name = family.name if family.bounds else f"{family.name}_total"
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{name}`")]
        for label in set(family.labels) - {"model", "version"}:
            assert f"`{label}`" in row
    for gauge in (*GAUGES, *MODEL_GAUGES):
        assert f"| `{gauge.name}`" in text
