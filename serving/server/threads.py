"""How many processors a prediction may use. Decided before torch is loaded."""

from __future__ import annotations

import os

from dubio.serving.settings import Settings


def divide(settings: Settings) -> Settings:
    """Give each of the workers its share of the processors, unless the operator or OMP_NUM_THREADS did.

    Args:
        settings: Of the service.
    """
    if settings.torch_threads is not None:
        return settings
    wished = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    threads = int(wished) if wished.isdecimal() else len(os.sched_getaffinity(0)) // settings.workers
    return settings.model_copy(update={"torch_threads": max(1, threads)})
