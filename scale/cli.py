"""`dubio-score`: from a checkpoint and a file to a file of answers."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which bring torch and polars along
    from dubio.models import InputSpec
    from dubio.scale.job import Job
    from dubio.scale.output import Output

# Only behind a checkpoint's suffix, because a folder may well have a + in its name.
BETWEEN_CHECKPOINTS = re.compile(r"(?<=\.ckpt)\+")
INTERRUPTED = 130
_WRONG = 2

_DESCRIPTION = """\
Score a file of any size: both answers to each row, their uncertainty, flag, label set and decision, as the service
would answer it, beside the columns that say which row is which.
"""
_EPILOG = """\
inputs:
  .csv .tsv        a header, then a row a line; .parquet likewise. A table's columns by their names; a text in `text`;
                   numbers and pixels in a column each, in row-major order (or, in .parquet, in a column `x` of lists)
  .jsonl .ndjson   an object a line, with the same keys
  .npz             `x` as numpy.savez wrote it
  .txt             a text a line
  a folder         of PNG, JPEG and WebP files, in all folders inside it

examples:
  dubio-score runs/table_mlp/model.ckpt new.csv answers.parquet --ids patient
  dubio-score runs/digits_mlp/model.ckpt scans.npz answers.csv
  dubio-score runs/table_mlp/model.ckpt new.parquet answers.parquet --ray auto --ray-workers 1:16

A job that was interrupted or killed goes on where it was when the same command is given again: until it is done, its
answers are in OUTPUT.parts. Rows that the model does not take are in OUTPUT.rejects.jsonl, with the reason.

exit codes: 0 all rows are answered or rejected; 2 a mistake, told in one line; 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Score a file.

    Args:
        argv: Arguments of the command line; None for those of this process, which then also finds modules in the folder
            that it was started in.

    Returns:
        The exit code.
    """
    given = parser().parse_args(argv)
    from dubio.models.errors import ModelError, printable  # which bring torch along

    if argv is None and given.trust:
        sys.path.append(os.getcwd())  # last: what a user calls `models` or `numpy` must hide nobody else's
    try:
        _run(given)
    except KeyboardInterrupt:
        print("dubio-score: interrupted; the same command goes on where it was", file=sys.stderr)
        return INTERRUPTED
    except (ModelError, OSError) as error:
        print(f"dubio-score: error: {printable(str(error))}", file=sys.stderr)
        return _WRONG
    return 0


def _run(given: Namespace) -> None:
    import torch

    from dubio.models.errors import InvalidInput
    from dubio.scale import scoring
    from dubio.scale.ray_data import parse_workers

    if given.ray is None and given.ray_workers is not None:
        raise InvalidInput("Expected --ray beside --ray-workers, but it is absent; say which cluster.")
    cluster = None if given.ray is None else scoring.Cluster(given.ray, parse_workers(given.ray_workers))
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    job, spec, output = prepare(given)
    scoring.run(job, spec, output, given.overwrite, cluster)


def prepare(given: Namespace) -> tuple[Job, InputSpec, Output]:
    """What was asked for, with what the checkpoint says about it.

    Args:
        given: That `parser` read.

    Returns:
        The job, what its model takes, and where answers go.

    Raises:
        ModelError: If the checkpoint cannot be read, or the output is of no known format.
    """
    from dubio.scale.job import Job, as_trained, check_output
    from dubio.scale.output import Output
    from dubio.scale.readers.rows import Reading

    path = Path(given.output)
    check_output(path)
    checkpoints = tuple(os.path.abspath(each) for each in BETWEEN_CHECKPOINTS.split(given.checkpoint))
    reading = Reading(tuple(given.ids), tuple(given.ignore), given.field, given.separator)
    metadata, reading = as_trained(reading, checkpoints[0], given.decimal)
    model = {
        "samples": given.samples,
        "device": given.device,
        "trusted": tuple(given.trust),
        "strategy": given.strategy,
        "batch_invariant": given.batch_invariant,
    }
    source = os.path.abspath(given.input)
    job = Job(checkpoints, source, path.suffix, reading, model, given.bad_rows == "stop", given.part_rows)
    rejects = Path(given.rejects) if given.rejects else path.with_name(f"{path.name}.rejects.jsonl")
    return job, metadata.input, Output(path, rejects, job.suffix)


def parser() -> ArgumentParser:
    """The arguments that there are."""
    whole = ArgumentParser(
        "dubio-score",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = whole.add_argument
    add("checkpoint", help="calibrated checkpoint; first.ckpt+second.ckpt is an ensemble")
    add("input", help="file or folder to score")
    add("output", help="file to write: .csv, .parquet or .jsonl")
    rows = whole.add_argument_group("the input's columns")
    add = rows.add_argument
    add("--ids", metavar="NAME", action="append", default=[], help="column to carry over; repeatable")
    add("--ignore", metavar="NAME", action="append", default=[], help="column to leave aside; repeatable")
    add("--field", metavar="NAME", help="column with the inputs of a model that is no table's (`text`, or `x`)")
    add("--separator", metavar="SIGN", type=_sign, help="between the values of a CSV file (as in the fit, or a comma)")
    add("--decimal", choices=[".", ","], help="before the fraction of a number in a CSV file (as in the fit)")
    out = whole.add_argument_group("the output")
    add = out.add_argument
    add("--bad-rows", choices=["reject", "stop"], default="reject", help="what to do about them (reject)")
    add("--rejects", metavar="PATH", help="where they go (OUTPUT.rejects.jsonl)")
    add("--overwrite", action="store_true", help="replace an output that is there, and parts of another job")
    add("--part-rows", metavar="N", type=_positive, default=10_000, help="rows that a kill costs at most (10000)")
    model = whole.add_argument_group("the model")
    add = model.add_argument
    add("--samples", metavar="N", type=_samples, help="members that answer (all), or auto")
    add("--batch-invariant", action="store_true", help="the same bits, whatever rows share a batch; slower")
    add("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    add("--threads", metavar="N", type=_positive, help="processors that torch may use")
    add("--strategy", help="how members are run (the fastest, by measuring)")
    add("--trust", metavar="MODULE", action="append", default=[], help="module of networks of your own; repeatable")
    ray = whole.add_argument_group("a cluster")
    add = ray.add_argument
    add("--ray", metavar="ADDRESS", help="score on a Ray cluster: its address, auto, or local for this machine")
    add("--ray-workers", metavar="N|LEAST:MOST", help="models at a time (as many as there are processors)")
    return whole


def _samples(text: str) -> int | str:
    return text if text == "auto" else _positive(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a positive number, but got {text!r}")
    return int(text)


def _sign(text: str) -> str:
    if text == "\\t":
        return "\t"
    if len(text.encode()) != 1 or text in '"\r\n':
        raise ArgumentTypeError(f"expected one character, and no quote or end of a line, but got {text!r}")
    return text
