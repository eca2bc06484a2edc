"""How many processors a prediction may use, and where it is computed. Decided before torch is loaded.

A container's limit is a quota of processor time in its control group, which neither torch nor Python knows of. Threads
beyond it are stopped together for the rest of every period.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dubio.serving.settings import Settings, available_processors

_PROCESS = Path("/proc/self")
_PROCESSORS_FOR_TWO = 2


def divide(settings: Settings, process: Path = _PROCESS) -> Settings:
    """Give each of the workers its share of the processors, unless the operator or OMP_NUM_THREADS did.

    With two processors or more a worker has one for the requests and others for a process that computes.

    Args:
        settings: Of the service.
        process: What the system tells of this process.
    """
    share = int(count_processors(process) // settings.workers)
    known: dict[str, object] = {}
    if settings.predict_in == "auto":
        known["predict_in"] = "process" if share >= _PROCESSORS_FOR_TWO else "thread"
    if settings.torch_threads is None:
        wished = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
        known["torch_threads"] = max(1, int(wished) if wished.isdecimal() else share)
    return settings.model_copy(update=known)


def count_processors(process: Path = _PROCESS) -> float:
    """Count those that this process may use at a time: by affinity, and by the quotas of its control groups."""
    return min([available_processors(), *_quotas(process)])


def _quotas(process: Path) -> Iterator[float]:
    """Read the quota of each control group that the process is in, and of those around it."""
    try:
        groups = [line.split(":", 2) for line in (process / "cgroup").read_text().splitlines()]
        mounts = [line.partition(" - ") for line in (process / "mountinfo").read_text().splitlines()]
    except OSError:  # a system without control groups
        return
    for place, _, kind in mounts:
        system, _, options = kind.split(" ", 2)
        for _, controllers, path in groups:
            # Version 2 has one hierarchy, which names no controller; version 1 one of its own for the processors.
            if system == "cgroup2" and not controllers:
                read = _quota_of_version_2
            elif system == "cgroup" and "cpu" in options.split(",") and "cpu" in controllers.split(","):
                read = _quota_of_version_1
            else:
                continue
            root, top = place.split(" ")[3:5]
            # The path starts from the hierarchy's root; what is mounted may be a part of it, such as the container's.
            inside = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
            for folder in (Path(top) / inside, *(Path(top) / parent for parent in inside.parents)):
                try:
                    yield read(folder)
                except (OSError, ValueError):  # no such group is mounted here, or it has no quota
                    continue


def _quota_of_version_2(folder: Path) -> float:
    quota, period = (folder / "cpu.max").read_text().split()
    return int(quota) / int(period)  # "max" is no number


def _quota_of_version_1(folder: Path) -> float:
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    if quota < 0:
        raise ValueError("There is no quota.")
    return quota / int((folder / "cpu.cfs_period_us").read_text())
