from __future__ import annotations

from pathlib import Path

import pytest

from dubio.models.errors import InvalidInput, MismatchedCheckpoints, ModelError, UnreadableCheckpoint


@pytest.mark.parametrize("error", [UnreadableCheckpoint, InvalidInput, MismatchedCheckpoints])
def test_every_error_is_a_model_error_and_a_value_error(error: type[Exception]):
    assert issubclass(error, ModelError)
    assert issubclass(error, ValueError)


def test_an_unreadable_checkpoint_names_the_file_and_why():
    error = UnreadableCheckpoint(Path("runs/a.ckpt"), "is empty.")
    assert str(error) == "runs/a.ckpt: is empty."
    assert (error.path, error.reason) == ("runs/a.ckpt", "is empty.")
