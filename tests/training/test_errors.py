from __future__ import annotations

import pytest

from dubio.training import errors


@pytest.mark.parametrize("name", ["DataUnavailable", "UnreadableData", "InvalidSplit", "NetworkMismatch"])
def test_every_mistake_is_of_one_family(name: str):
    assert issubclass(getattr(errors, name), errors.TrainingError)
    assert issubclass(errors.TrainingError, ValueError)
