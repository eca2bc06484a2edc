"""Ray: parts of a job scored by the nodes of a cluster, with Ray Data.

The rows of the data set are spans, not inputs: an actor reads its span itself, so that nothing large goes through the
driver but what comes back, and what Ray computes anew after a node was lost is a part like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from numpy.typing import NDArray

from dubio.models.errors import InvalidInput, ModelError
from dubio.scale.job import Job
from dubio.scale.part import Part, PartScorer
from dubio.scale.readers.rows import Span, objects


def parse_workers(text: str | None) -> tuple[int, int] | None:
    """A number of workers, `4`, or the least and the most of them, `1:8`; None for as many as there is work for.

    Raises:
        InvalidInput: If it is neither.
    """
    if text is None:
        return None
    least, colon, most = text.partition(":")
    if not (least.isdecimal() and (most.isdecimal() or not colon)):
        raise InvalidInput(f"Expected --ray-workers to be a number such as 4, or two such as 1:8, but got {text!r}.")
    found = int(least), int(most or least)
    if not 1 <= found[0] <= found[1]:
        raise InvalidInput(f"Expected --ray-workers to be positive and ascending, but got {text!r}.")
    return found


class PartWorker:
    """Maps spans, column by column, to parts; an error is a column of theirs, because Ray would wrap it or try again.

    Args:
        job: The job.
    """

    def __init__(self, job: Job) -> None:
        self._scorer: PartScorer | None = None
        try:
            self._scorer = PartScorer(job)
        except (ModelError, OSError) as error:
            self._problem = str(error)

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Score the spans of a batch."""
        columns = (batch[name].tolist() for name in ("number", "first", "rows", "offset", "line"))
        told = [self._score(number, Span(*span)) for number, *span in zip(*columns, strict=True)]
        return {name: objects([each[name] for each in told]) for name in told[0]}

    def _score(self, number: int, span: Span) -> dict[str, Any]:
        part, problem = Part(number, span.rows, b"", b""), None
        try:
            if self._scorer is None:
                problem = self._problem
            else:
                part = self._scorer.score(number, span)
        except (ModelError, OSError) as error:
            problem = str(error)
        return {**vars(part), "problem": problem or ""}


def score(job: Job, spans: Mapping[int, Span], address: str, workers: tuple[int, int] | None = None) -> Iterator[Part]:
    """The parts of spans, in any order.

    Args:
        job: The job; its paths have to be valid on every node.
        spans: By the numbers of their parts.
        address: Of the cluster, as `ray.init` takes it; `local` starts one on this machine.
        workers: Least and most actors, each with a model of its own on one processor, or GPU.

    Raises:
        InvalidInput: If Ray is not installed or there is no such cluster, or a part cannot be scored.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext, from_items
        from ray.exceptions import RayError
    except ImportError as error:
        raise InvalidInput("Expected Ray for --ray, but it is not installed; pip install 'dubio[scale]'.") from error
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    began = not ray.is_initialized()
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise InvalidInput(f"Expected a Ray cluster at {address!r}, but there is none: {_first_line(error)}") from error
    try:
        there = int(ray.cluster_resources().get("GPU" if _on_gpu(job) else "CPU", 1))
        least, most = workers or (1, max(1, there))
        pool = ActorPoolStrategy(min_size=least, max_size=max(least, min(most, len(spans))))
        rows = [{"number": number, **asdict(span)} for number, span in sorted(spans.items())]
        parts = from_items(rows, override_num_blocks=len(rows)).map_batches(
            PartWorker, fn_constructor_args=(job,), batch_size=1, compute=pool, **_needs(job)
        )
        for row in parts.iter_rows():
            if row["problem"]:
                raise InvalidInput(row["problem"])
            yield Part(row["number"], row["rows"], row["answers"], row["rejects"])
    except RayError as error:
        raise InvalidInput(f"Ray gave up: {_first_line(error)}; the same command goes on where it was.") from error
    finally:
        if began:
            ray.shutdown()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _on_gpu(job: Job) -> bool:
    return str(job.model.get("device", "cpu")).startswith("cuda")


def _needs(job: Job) -> dict[str, Any]:
    return {"num_cpus": 1, "num_gpus": 1} if _on_gpu(job) else {"num_cpus": 1}
