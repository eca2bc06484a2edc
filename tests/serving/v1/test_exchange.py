"""One exchange, in the forms that its answer has, through a real socket."""

from __future__ import annotations

import httpx
import pytest

from tests.serving.kinds import INSTANCES, predictions


@pytest.mark.parametrize("model", INSTANCES)
def test_rows_are_answered_as_by_our_own_call(kinds: httpx.Client, model: str) -> None:
    expected = predictions(kinds, model)
    for name in ("instances", "inputs"):
        answer = kinds.post(f"/v1/models/{model}:predict", json={name: INSTANCES[model]})
        assert (answer.status_code, answer.json()) == (200, {"predictions": expected})
    versioned = kinds.post(f"/v1/models/{model}/versions/1:predict", json={"instances": INSTANCES[model]})
    assert versioned.json()["predictions"] == expected
