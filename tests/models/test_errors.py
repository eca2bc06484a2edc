from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import InvalidInput, ModelError, UnreadableCheckpoint


@pytest.mark.parametrize("error", [UnreadableCheckpoint, InvalidInput])
def test_every_error_is_a_model_error_and_a_value_error(error: type[Exception]):
    assert issubclass(error, ModelError)
    assert issubclass(error, ValueError)


def test_an_unreadable_checkpoint_names_the_file_and_why():
    error = UnreadableCheckpoint(Path("runs/a.ckpt"), "is empty.")
    assert str(error) == "runs/a.ckpt: is empty."
    assert (error.path, error.reason) == ("runs/a.ckpt", "is empty.")
