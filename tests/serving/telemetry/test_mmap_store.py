from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dubio.serving.errors import UnusableFolder
from dubio.serving.telemetry.definitions import FAMILIES
from dubio.serving.telemetry.mmap_store import MOST_SERIES, NUMBERS, MmapStore, map_file

ROOT = Path(__file__).parents[3]


def totals(store: MmapStore) -> dict[tuple[str, tuple[str, ...]], list[float]]:
    return {series: values.tolist() for series, values in store.total().items()}


def test_one_process_counts_in_memory() -> None:
    store = MmapStore()
    store.block("a", ("x",), 1)[0] += 2
    store.block("b", (), 3)[:] += [1, 2, 3]
    store.block("a", ("x",), 1)[0] += 1
    assert totals(store) == {("a", ("x",)): [3.0], ("b", ()): [1.0, 2.0, 3.0]}


def test_series_beyond_the_most_are_counted_together_also_by_the_next_worker(tmp_path: Path) -> None:
    for _ in range(2):
        store = MmapStore(tmp_path, 0, most_series=2)
        for label in ("w", "x", "y", "z"):
            store.block("a", (label, "1"), 1)[0] += 1
        store.block("b", (), 1)[0] += 1  # another metric has its own
    assert totals(store) == {
        ("a", ("w", "1")): [2.0],
        ("a", ("x", "1")): [2.0],
        ("a", ("other",) * 2): [4.0],
        ("b", ()): [2.0],
    }


def test_several_processes_add_up_whoever_is_asked(tmp_path: Path) -> None:
    one, other = MmapStore(tmp_path, 0), MmapStore(tmp_path, 1)
    one.block("a", ("x",), 1)[0] += 2
    other.block("h", ("y",), 2)[:] += [1, 5]
    other.block("a", ("x",), 1)[0] += 3
    expected = {("a", ("x",)): [5.0], ("h", ("y",)): [1.0, 5.0]}
    assert totals(one) == totals(other) == expected


def test_a_worker_that_takes_a_dead_ones_place_counts_on(tmp_path: Path) -> None:
    first = MmapStore(tmp_path, 0)
    first.block("a", ("x",), 1)[0] += 2
    first.block("h", (), 2)[1] += 1
    second = MmapStore(tmp_path, 0)
    second.block("new", (), 1)[0] += 7
    second.block("a", ("x",), 1)[0] += 1
    assert totals(second) == {("a", ("x",)): [3.0], ("h", ()): [0.0, 1.0], ("new", ()): [7.0]}


def test_an_entry_that_a_killed_worker_left_half_written_is_dropped(tmp_path: Path) -> None:
    first = MmapStore(tmp_path, 0)
    first.block("a", ("x",), 1)[0] += 2
    path = tmp_path / "0.metrics"
    content = path.read_bytes()
    [entry] = [line for line in content.split(b"\n") if b'"a"' in line]
    end = content.index(entry) + len(entry) + 1
    path.write_bytes(content[:end] + b'["b", ["half' + content[end + 12 :])
    assert totals(MmapStore(tmp_path, 1)) == {("a", ("x",)): [2.0]}
    second = MmapStore(tmp_path, 0)
    second.block("b", ("y",), 1)[0] += 1
    assert totals(second) == totals(MmapStore(tmp_path, 1)) == {("a", ("x",)): [2.0], ("b", ("y",)): [1.0]}


def test_files_are_allocated_as_a_whole_and_grow_no_more(tmp_path: Path) -> None:
    def blocks() -> dict[str, int]:
        return {path.name: path.stat().st_blocks for path in tmp_path.iterdir()}

    map_file(tmp_path / "mapped", 100_000)
    store = MmapStore(tmp_path, 0)
    before = blocks()
    assert all(512 * count >= (tmp_path / name).stat().st_size > 0 for name, count in before.items())
    for number in range(600):
        store.block("a", (str(number),), 17)[:] += 1
    assert blocks() == before


def test_a_folder_without_room_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableFolder, match=f"room for .* bytes in {tmp_path}/gone.*No such file.*TMPDIR"):
        map_file(tmp_path / "gone" / "numbers", 10)


def test_there_is_room_for_as_many_series_as_every_metric_may_have() -> None:
    sizes = [len(family.bounds) + 2 if family.bounds else 1 for family in FAMILIES]
    assert sum(sizes) * (MOST_SERIES + 1) <= NUMBERS


def test_labels_beyond_all_measure_fail_nothing(caplog: pytest.LogCaptureFixture) -> None:
    store = MmapStore(most_series=2000)
    for number in range(1100):
        store.block("a", (f"{number}" + "x" * 1000,), 1)[0] += 1
    assert len(store.total()) == 1100
    assert "too long" in caplog.text
    store.block("b", ("y",), 1)[0] += 1
    assert totals(store)["b", ("y",)] == [1.0]


COUNT = """
import sys
from pathlib import Path
from dubio.serving.telemetry.mmap_store import MmapStore

store = MmapStore(Path(sys.argv[1]), int(sys.argv[2]))
for i in range(20_000):
    store.block("a", (str(i % 50),), 2)[:] += [1, 2]
"""


def test_a_file_of_a_process_that_has_only_just_begun_counts_nothing(tmp_path: Path) -> None:
    store = MmapStore(tmp_path, 0)
    store.block("a", ("x",), 1)[0] += 1
    before, processes = totals(store), store.processes()
    (tmp_path / next(tmp_path.iterdir()).name.replace("0", "1", 1)).touch()
    assert len(list(tmp_path.iterdir())) == 2
    assert totals(store) == before
    assert store.processes() == processes


def test_what_is_read_while_others_write_never_falls(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", COUNT, tmp_path, worker], cwd=ROOT) for worker in ("1", "2")]
    reader = MmapStore(tmp_path, 0)
    seen = 0.0
    while any(writer.poll() is None for writer in writers):
        now = sum(values[0] for values in totals(reader).values())
        assert now >= seen
        seen = now
    final = totals(reader)
    assert len(final) == 50
    assert np.sum(list(final.values()), axis=0).tolist() == [40_000.0, 80_000.0]
    assert [writer.returncode for writer in writers] == [0, 0]
