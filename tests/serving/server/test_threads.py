from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dubio.serving.server.threads import count_processors, divide

NO_LIMIT = len(os.sched_getaffinity(0))


def test_processors_are_divided_among_workers(settings: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    processors = max(1, int(count_processors()))
    given = settings(torch_threads=None, workers=1, prediction_threads=1)
    assert divide(given).torch_threads == processors
    assert divide(given.model_copy(update={"workers": processors})).torch_threads == 1
    assert divide(given.model_copy(update={"workers": 200})).torch_threads == 1
    chosen = settings(torch_threads=3, workers=4)
    assert divide(chosen).torch_threads == 3


@pytest.mark.parametrize(("wished", "threads"), [("5", 5), (" 5 ", 5), ("5,2", 5), ("0", 1)])
def test_the_variable_of_openmp_is_obeyed_and_the_setting_wins(
    settings: Callable, monkeypatch: pytest.MonkeyPatch, wished: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wished)
    assert divide(settings(torch_threads=None)).torch_threads == threads
    assert divide(settings(torch_threads=3)).torch_threads == 3


def test_a_variable_that_is_no_number_is_as_none(settings: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert divide(settings(torch_threads=None, workers=1)).torch_threads == max(1, int(count_processors()))


class System:
    """What a system tells of a process in control groups: the same files at the same places, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.process = folder / "proc"
        self.process.mkdir()
        self._folder = folder
        self._mounts, self._groups = ["22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"], ["9:memory:/far/away"]

    def mount(self, kind: str, options: str, root: str = "/") -> Path:
        """Mount a hierarchy, or the part of it below `root`."""
        top = self._folder / f"cgroup{len(self._mounts)}"
        top.mkdir()
        self._mounts.append(f"30 22 0:25 {root} {top} rw,nosuid shared:4 - {kind} {kind} {options}")
        self._write()
        return top

    def enter(self, line: str) -> None:
        """Put the process into a group, in the words of /proc/self/cgroup."""
        self._groups.append(line)
        self._write()

    def _write(self) -> None:
        (self.process / "mountinfo").write_text("\n".join(self._mounts) + "\n")
        (self.process / "cgroup").write_text("\n".join(self._groups) + "\n")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))  # as on a machine of eight
    return System(tmp_path)


def limit(folder: Path, quota: object, period: int = 100_000) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(f"{quota} {period}\n")


def limit_v1(folder: Path, quota: int, period: int = 100_000) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text(f"{period}\n")


@pytest.mark.parametrize(
    ("quota", "workers", "threads"),
    [(200_000, 1, 2), (350_000, 1, 3), (350_000, 2, 1), (50_000, 1, 1), (1_000_000, 1, 8), ("max", 1, 8)],
)
def test_a_container_counts_by_its_quota(
    system: System, settings: Callable, quota: object, workers: int, threads: int
) -> None:
    """As in Docker and Kubernetes: the container sees its own group as the root."""
    limit(system.mount("cgroup2", "rw,nsdelegate"), quota)
    system.enter("0::/")
    assert divide(settings(torch_threads=None, workers=workers), system.process).torch_threads == threads
    assert divide(settings(torch_threads=5, workers=workers), system.process).torch_threads == 5


@pytest.mark.parametrize(
    ("quota", "workers", "where"),
    [(200_000, 1, "process"), (199_000, 1, "thread"), (350_000, 2, "thread"), (400_000, 2, "process")],
)
def test_predictions_get_a_process_where_a_worker_has_two_processors(
    system: System, settings: Callable, quota: int, workers: int, where: str
) -> None:
    limit(system.mount("cgroup2", "rw,nsdelegate"), quota)
    system.enter("0::/")
    given = settings(workers=workers)
    assert divide(given, system.process).predict_in == where
    for chosen in ("process", "thread"):
        assert divide(given.model_copy(update={"predict_in": chosen}), system.process).predict_in == chosen


def test_the_smallest_quota_of_the_groups_around_counts(system: System) -> None:
    """As for a service of systemd within a slice."""
    top = system.mount("cgroup2", "rw")
    limit(top / "system.slice", 300_000)
    limit(top / "system.slice" / "dubio.service", 700_000)
    limit(top / "other.slice", 100_000)
    system.enter("0::/system.slice/dubio.service")
    assert count_processors(system.process) == 3
    limit(top / "system.slice" / "dubio.service", 125_000, period=50_000)
    assert count_processors(system.process) == 2.5


def test_version_1_has_a_hierarchy_of_its_own_for_processors(system: System) -> None:
    system.mount("cgroup", "rw,cpuset")
    limit_v1(system.mount("cgroup", "rw,cpu,cpuacct") / "docker" / "abc", 150_000, period=50_000)
    system.enter("3:cpuset:/docker/xyz")
    system.enter("4:cpu,cpuacct:/docker/abc")
    assert count_processors(system.process) == 3


def test_what_is_mounted_may_be_a_part_of_the_hierarchy(system: System) -> None:
    """As in containers of version 1: the path is that of the host, and the mount begins at the container."""
    limit_v1(system.mount("cgroup", "rw,cpuacct,cpu", root="/docker/abc"), 400_000)
    system.enter("4:cpuacct,cpu:/docker/abc")
    assert count_processors(system.process) == 4


def test_a_group_outside_of_what_is_mounted_is_looked_for_at_its_top(system: System) -> None:
    limit(system.mount("cgroup2", "rw", root="/"), 200_000)
    system.enter("0::/../../kubepods/pod1")
    assert count_processors(system.process) == 2


def test_no_quota_is_no_limit(system: System, tmp_path: Path) -> None:
    assert count_processors(tmp_path / "nothing") == 8
    limit_v1(system.mount("cgroup", "rw,cpu"), -1)
    system.mount("cgroup2", "rw")  # without the controller, as beside version 1
    system.enter("1:cpu:/")
    system.enter("0::/")
    assert count_processors(system.process) == 8


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A group of this machine with a quota of one processor."""
    for place in ("/sys/fs/cgroup", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"):
        if (Path(place) / "cgroup.procs").exists():
            group = Path(place) / f"dubio-test-{os.getpid()}"
            try:
                group.mkdir()
            except OSError:
                continue
            quota = next((group / name for name in ("cpu.max", "cpu.cfs_quota_us") if (group / name).exists()), None)
            if quota is not None:
                quota.write_text("100000")
                yield group
            group.rmdir()
            if quota is not None:
                return
    pytest.skip("no control group can be made here")


def test_a_process_in_a_group_of_this_machine_counts_by_its_quota(real_group: Path) -> None:
    code = "from dubio.serving.server.threads import count_processors; print(count_processors())"
    enter = f"echo $$ > {real_group}/cgroup.procs && exec {sys.executable} -c '{code}'"
    done = subprocess.run(["sh", "-c", enter], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    if "cgroup.procs" in done.stderr:
        pytest.skip("no process can be moved here")
    assert float(done.stdout) == min(1, NO_LIMIT), done.stderr
