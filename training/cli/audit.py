"""`dubio-train audit`: which dropout a checkpoint samples, and how."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dubio.models import load
from dubio.training.cli.messages import COMMANDS


def main(args: Sequence[str]) -> None:
    """Print the table for a checkpoint.

    Raises:
        ModelError: The checkpoint cannot be read.
    """
    parser = argparse.ArgumentParser(prog="dubio-train audit", description=COMMANDS["audit"])
    parser.add_argument("--ckpt", required=True, metavar="PATH", help="a calibrated checkpoint: runs/<name>/model.ckpt")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="module prefix whose classes the checkpoint may name beside Dubio's own; may be repeated",
    )
    given = parser.parse_args(args)
    print(load(given.ckpt, trusted=given.trust).committee.audit())
