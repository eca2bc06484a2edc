"""The commands that are no verb of the trainer: what each takes, known without importing what it does."""

from __future__ import annotations

from argparse import ArgumentParser

from dubio.training.cli.messages import COMMANDS


def audit() -> ArgumentParser:
    """What `dubio-train audit` takes."""
    parser = ArgumentParser(prog="dubio-train audit", description=COMMANDS["audit"])
    parser.add_argument("--ckpt", required=True, metavar="PATH", help="a calibrated checkpoint: runs/<name>/model.ckpt")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="module prefix whose classes the checkpoint may name beside Dubio's own; may be repeated",
    )
    return parser


def compare() -> ArgumentParser:
    """What `dubio-train compare` takes beside what `fit` takes."""
    parser = ArgumentParser(
        prog="dubio-train compare",
        description=f"{COMMANDS['compare']} Both trainings begin with the same weights and take the same epochs; loss "
        "and accuracy are drawn for training and validation rows, and accuracy, NLL and calibration error are those of "
        "the test rows. Takes every argument that `dubio-train fit` takes.",
    )
    parser.add_argument("--figure", metavar="PATH", help="where to draw; by default compare/curves.svg in the run")
    return parser


def configs() -> ArgumentParser:
    """What `dubio-train configs` takes."""
    parser = ArgumentParser(prog="dubio-train configs", description=COMMANDS["configs"])
    parser.add_argument("name", nargs="?", help="which to write out; without it, all are listed")
    parser.add_argument("--output", metavar="FILE", help="where to write it; by default <name>.yaml in this folder")
    return parser


PARSERS = {"audit": audit, "compare": compare, "configs": configs}
