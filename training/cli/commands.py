"""The commands that are no verb of the trainer: what each takes, known without importing what it does."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from dubio.training.cli.messages import CHECKPOINT, COMMANDS


def audit() -> ArgumentParser:
    """What `dubio-train audit` takes."""
    parser = ArgumentParser(prog="dubio-train audit", description=COMMANDS["audit"])
    parser.add_argument(
        *CHECKPOINT, required=True, metavar="PATH", help="a calibrated checkpoint: runs/<name>/model.ckpt"
    )
    parser.add_argument(
        "--trusted",
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


def report() -> ArgumentParser:
    """What `dubio-train report` takes beside what `test` takes."""
    parser = ArgumentParser(
        prog="dubio-train report",
        formatter_class=RawDescriptionHelpFormatter,
        description=f"""{COMMANDS["report"]}

The test rows are those of the checkpoint: its data are read as at the fit. For that the `config.yaml` beside the
checkpoint is run, as `dubio-train test --config` would run it, with the classes that it names: report only on a
folder that you trust, or give `--config`. One of another network or of other classes is refused. What is told:
  both answers' accuracy, NLL, Brier score and calibration error with intervals, together and by class
  the promise on false alarms, held against the test rows and, over 400 resplits, against its exact law
  the promise on accepted answers and the label sets, where they were calibrated, held against theirs
  strangers, damaged inputs, the most uncertain and the most unfamiliar rows
  what is not promised, how to monitor, what a new version must show, and which rule asks for which number
The folder holds report.html, which loads nothing from elsewhere, the pictures in it as PNG files, report.json
and its schema. Written again on the same day, it is the same, byte for byte.""",
        epilog="Takes every argument that `dubio-train test` takes, such as --data.path, where the data have moved.",
    )
    parser.add_argument(
        *CHECKPOINT, required=True, metavar="PATH", help="a calibrated checkpoint: runs/<name>/model.ckpt"
    )
    parser.add_argument("--output", metavar="FOLDER", help="where to write; by default <checkpoint>_report beside it")
    return parser


PARSERS = {"audit": audit, "compare": compare, "configs": configs, "report": report}
