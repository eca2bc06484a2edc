"""How many processors a prediction may use, and how its threads wait for each other. Decided before torch is loaded."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from dubio.serving.settings import Settings

# How OpenMP's threads wait, in its own variable and in those of the two libraries that implement it.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


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


def yield_processors(environment: MutableMapping[str, str]) -> None:
    """Let threads that wait sleep instead of spinning, unless the operator chose.

    Where other programs want the same processors, the last thread of each operation waits its turn while the others
    spin for it, and keep the processors from whom they wait for: loading a small network takes three times as long.

    Args:
        environment: Of this process, before torch is loaded; what it starts inherits it.
    """
    if not any(name in environment for name in _WAITING):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
