from __future__ import annotations

from pathlib import Path

from dubio.models.errors import UnreadableCheckpoint


def test_an_unreadable_checkpoint_names_the_file_and_why():
    error = UnreadableCheckpoint(Path("runs/a.ckpt"), "is empty.")
    assert str(error) == "runs/a.ckpt: is empty."
    assert (error.path, error.reason) == ("runs/a.ckpt", "is empty.")
