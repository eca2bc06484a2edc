"""Scoring: a job from its first row to its last, here or on a cluster, and on from where it was left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.scale import ray_data
from dubio.scale.job import Job
from dubio.scale.output import Output
from dubio.scale.part import Part, PartScorer
from dubio.scale.progress import progress, tell_time
from dubio.scale.readers.rows import Span
from dubio.scale.readers.source import open_source


@dataclass(frozen=True)
class Cluster:
    """Where a job runs, if not here.

    Attributes:
        address: As `ray.init` takes it.
        workers: Least and most; None for as many as there is work and room for.
    """

    address: str
    workers: tuple[int, int] | None = None


def run(job: Job, spec: InputSpec, output: Output, overwrite: bool = False, cluster: Cluster | None = None) -> None:
    """Score all rows that are not scored yet, write the output, and say what was done.

    Args:
        job: The job.
        spec: What its model takes.
        output: Where answers go.
        overwrite: Whether what is there is replaced.
        cluster: Where it runs; None for this process.

    Raises:
        ModelError: If the source, the model or what is there already is not what it should be.
    """
    source = open_source(Path(job.input), spec, job.reading)
    stamp = source.stamp()
    with output.begun(job.identity(stamp), overwrite):
        spans = output.spans()
        if spans is None:
            spans = list(source.spans(job.part_rows))
            if not spans:
                raise InvalidInput(f"{job.input}: expected rows, but it has none.")
            output.keep_spans(spans)
        done = output.done()
        left = {number: span for number, span in enumerate(spans) if number not in done}
        total, rows = (sum(span.rows for span in each) for each in (spans, left.values()))
        if done:
            print(f"dubio-score: {total - rows} of {total} rows are scored already; going on.", file=sys.stderr)
        scorer = PartScorer(job) if left and cluster is None else None  # loads the model, which is no scoring
        began = time.monotonic()
        with progress(total, total - rows) as advance:
            for part in _parts(job, left, cluster or scorer, advance):
                output.write(part)
        seconds = time.monotonic() - began
        if source.stamp() != stamp:
            raise InvalidInput(f"{job.input}: changed while it was read; score it again with --overwrite.")
        rejected = output.finish(len(spans))
    rate = f" in {tell_time(seconds)} ({rows / seconds:,.0f} rows/s)" if rows else ""
    print(f"dubio-score: {rows} rows scored{rate}: {output.path} holds {total - rejected}.", file=sys.stderr)
    if rejected:
        what = f"{rejected} {'row is' if rejected == 1 else 'rows are'} rejected"
        print(f"dubio-score: warning: {what}; {output.rejects} says why.", file=sys.stderr)


def _parts(
    job: Job, spans: Mapping[int, Span], where: Cluster | PartScorer | None, advance: Callable[[int], None]
) -> Iterator[Part]:
    if isinstance(where, PartScorer):
        for number, span in spans.items():
            yield where.score(number, span, advance)
    elif where is not None and spans:
        for part in ray_data.score(job, spans, where.address, where.workers):
            yield part
            advance(part.rows)
