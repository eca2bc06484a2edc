"""Ray: parts of a job scored by the nodes of a cluster, with Ray Data.

The rows of the data set are spans, not inputs: an actor reads its span itself, so that nothing large goes through the
driver but what comes back, and what Ray computes anew after a node was lost is a part like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from dubio.models.errors import InvalidInput
from dubio.scale.job import Job
from dubio.scale.part import Part, PartScorer
from dubio.scale.readers.rows import Span


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
        from ray.data import ActorPoolStrategy, from_items
    except ImportError as error:
        raise InvalidInput("Expected Ray for --ray, but it is not installed; pip install 'dubio[scale]'.") from error
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError) as error:
        raise InvalidInput(f"Expected a Ray cluster at {address!r}, but {str(error).splitlines()[0]}") from error
    most = int(ray.cluster_resources().get("GPU" if _on_gpu(job) else "CPU", 1))
    least, most = workers or (1, max(1, most))
    pool = ActorPoolStrategy(min_size=least, max_size=min(most, max(least, len(spans))))
    rows = [{"number": number, **asdict(span)} for number, span in sorted(spans.items())]
    parts = from_items(rows, override_num_blocks=len(rows)).map_batches(
        PartScorer, fn_constructor_args=(job,), batch_size=1, compute=pool, **_needs(job)
    )
    for row in parts.iter_rows():
        if row["problem"]:
            raise InvalidInput(row["problem"])
        yield Part(row["number"], row["rows"], row["answers"], row["rejects"])


def _on_gpu(job: Job) -> bool:
    return str(job.model.get("device", "cpu")).startswith("cuda")


def _needs(job: Job) -> dict[str, Any]:
    return {"num_cpus": 1, "num_gpus": 1} if _on_gpu(job) else {"num_cpus": 1}
