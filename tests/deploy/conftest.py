"""What the tests of deploy/ take from those of the service."""

from __future__ import annotations

from tests.serving.conftest import checkpoint, command

__all__ = ["checkpoint", "command"]
