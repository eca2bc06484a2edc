"""What can go wrong with a model, as one family that knows no HTTP.

ModelError (ValueError)
|- UnreadableCheckpoint     a file that cannot be, or must not be, loaded
|- InvalidInput             rows that the model does not take
|- MismatchedCheckpoints    checkpoints that cannot be one ensemble
"""

from __future__ import annotations

from pathlib import Path


class ModelError(ValueError):
    """Base class of everything this package raises on purpose."""


class UnreadableCheckpoint(ModelError):
    """A checkpoint that cannot be loaded, or is refused; the message names the file, the field and the rule."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason


class InvalidInput(ModelError):
    """Input rows, or a number of samples, that the model does not take."""


class MismatchedCheckpoints(ModelError):
    """Checkpoints that cannot answer as one: too few, the same twice, other inputs or other classes."""
