"""The service as its users meet it: `dubio-serve` in a process of its own, and real checkpoints."""

from __future__ import annotations

from tests.serving.conftest import (
    checkpoint,
    command,
    numbers_checkpoint,
    pixels_checkpoint,
    serve,
    table_checkpoint,
    text_checkpoint,
)

__all__ = [
    "checkpoint",
    "command",
    "numbers_checkpoint",
    "pixels_checkpoint",
    "serve",
    "table_checkpoint",
    "text_checkpoint",
]
