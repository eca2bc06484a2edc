"""`dubio-train audit`: which dropout a checkpoint samples, and how."""

from __future__ import annotations

from collections.abc import Sequence

from dubio.models import load
from dubio.training.cli import commands


def main(args: Sequence[str]) -> None:
    """Print the table for a checkpoint.

    Raises:
        ModelError: The checkpoint cannot be read.
    """
    given = commands.audit().parse_args(args)
    print(load(given.ckpt, trusted=given.trusted).committee.audit())
