from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from dubio.models.checkpoint.schema import KEY, Metadata


@pytest.fixture(scope="module")
def content(saved: Path) -> dict[str, Any]:
    return torch.load(saved, weights_only=True)[KEY]


def test_what_was_saved_is_valid_and_of_the_current_version(content: dict[str, Any]):
    assert Metadata.model_validate(content).format_version == 3


@pytest.mark.parametrize("field", sorted(Metadata.model_fields))
def test_every_field_is_due(content: dict[str, Any], field: str):
    with pytest.raises(ValidationError, match=rf"(?s){field}.*Field required"):
        Metadata.model_validate({name: value for name, value in content.items() if name != field})


@pytest.mark.parametrize("version", [0, 1, 2, 4, "3", [3], None])
def test_another_version_is_refused(content: dict[str, Any], version: object):
    with pytest.raises(ValidationError, match="format_version"):
        Metadata.model_validate({**content, "format_version": version})


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["one"], "at least 2 items"),
        (["one", "one"], "every class name once"),
        (["one", ""], "at least 1 character"),
        (["one", 2], "valid string"),
        ("ab", "valid list"),
        (["c"] * 100_001, "at most 100000 items"),
    ],
)
def test_classes_are_distinct_names(content: dict[str, Any], classes: object, message: str):
    with pytest.raises(ValidationError, match=message):
        Metadata.model_validate({**content, "classes": classes})
