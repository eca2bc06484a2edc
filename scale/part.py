"""Parts: a span of a source scored, as the bytes of a file of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from dubio.models import answer_table
from dubio.models.errors import InvalidInput
from dubio.scale.batch import ScoreBatch, Scored
from dubio.scale.job import Job
from dubio.scale.readers.rows import Rows, Span
from dubio.scale.readers.source import open_source


@dataclass(frozen=True)
class Part:
    """A part of the output.

    Attributes:
        number: Counted from 0, in the order of the source.
        rows: Of the source.
        answers: A file of the answers; of CSV with its header.
        rejects: Lines of JSON, one a row that the model does not take.
    """

    number: int
    rows: int
    answers: bytes
    rejects: bytes


class PartScorer:
    """Scores parts of one job; loads its model once.

    Args:
        job: The job.

    Raises:
        ModelError: If the model cannot be loaded, or the source not be read.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.batch = ScoreBatch(job.checkpoints, field=job.reading.field, bad_rows="mark", **job.model)
        self.source = open_source(Path(job.input), self.batch.predictor.input, job.reading)

    def score(self, number: int, span: Span, advance: Callable[[int], None] = lambda rows: None) -> Part:
        """Score a span of the source.

        Args:
            number: Of the part.
            span: Of the source.
            advance: Is told how many more rows are done.

        Raises:
            InvalidInput: If a row is bad and the job stops at such.
        """
        frames, rejects, rows = [], io.StringIO(), 0
        for read in self.source.read(span, self.batch.most_rows):
            scored = self.batch.score(read.inputs, read.errors)
            frames.append(_frame(read, scored))
            for row, error in enumerate(scored.errors):
                if error is not None:
                    self._reject(read, row, error, rejects)
            rows += len(read)
            advance(len(read))
        if rows != span.rows:
            raise InvalidInput(
                f"{self.job.input}: expected {span.rows} rows from row {span.first} on, but got {rows}; it changed "
                "while it was read."
            )
        answers = io.BytesIO()
        answer_table.write(pl.concat(frames), answers, self.job.suffix)
        return Part(number, rows, answers.getvalue(), rejects.getvalue().encode())

    def _reject(self, read: Rows, row: int, reason: str, rejects: io.StringIO) -> None:
        where = {"row": read.first + row} | ({} if read.lines is None else {"line": read.lines[row]})
        if self.job.stops:
            at = ", ".join(f"{name} {number}" for name, number in where.items())
            raise InvalidInput(f"{self.job.input}: {at}: {reason}")
        ids = read.ids.row(row, named=True) if read.ids.width else {}
        rejects.write(json.dumps({**where, **ids, "reason": reason}, ensure_ascii=False, default=str) + "\n")


def _frame(read: Rows, scored: Scored) -> pl.DataFrame:
    """The rows that were answered, with what identifies them."""
    keys = pl.DataFrame({"row": np.arange(read.first, read.first + len(read))}).with_columns(read.ids.get_columns())
    good: list[int] = scored.good.tolist()
    return keys[good].hstack(answer_table.frame(scored.answers))
