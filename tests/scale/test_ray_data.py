from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubio.models.errors import InvalidInput
from dubio.scale import ScoreBatch
from dubio.scale.cli import main
from dubio.scale.job import Job
from dubio.scale.part import PartScorer
from dubio.scale.ray_data import PartWorker, parse_workers
from dubio.scale.readers.rows import Reading, Span
from tests.scale.conftest import READERS, refused, score

# Ray warns about its own future.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(("text", "workers"), [(None, None), ("4", (4, 4)), ("1:8", (1, 8))])
def test_workers_are_a_number_or_two(text: str | None, workers: tuple[int, int] | None):
    assert parse_workers(text) == workers


@pytest.mark.parametrize("text", ["0", "", "a", "2:1", "1:", ":2", "-1"])
def test_what_is_no_number_of_workers_is_refused(text: str):
    with pytest.raises(InvalidInput, match="Expected --ray-workers to be"):
        parse_workers(text)


def test_a_worker_maps_columns_to_columns(numbers_checkpoint: Path, rows: np.ndarray, tmp_path: Path):
    rows[4] = np.nan
    path = tmp_path / "rows.npz"
    np.savez(path, x=rows)
    job = Job((str(numbers_checkpoint),), str(path), ".parquet", Reading(), {"strategy": "loop"}, True, 10)
    columns = {"number": [0, 1], "first": [0, 3], "rows": [2, 2], "offset": [0, 0], "line": [0, 0]}
    batch = {name: np.array(values) for name, values in columns.items()}
    told = PartWorker(job)(batch)
    assert told["number"].tolist() == [0, 1]
    assert told["answers"][0] == PartScorer(job).score(0, Span(0, 2)).answers
    assert told["problem"][0] == ""
    assert told["problem"][1].startswith(f"{path}: row 4: Expected finite values")
    absent = PartWorker(replace(job, checkpoints=("none.ckpt",)))(batch)
    assert absent["problem"].tolist() == ["none.ckpt: no such file; train one with `dubio-train fit`."] * 2


@pytest.fixture(scope="module")
def cluster(only_cluster: None) -> Iterator[Any]:
    """A real cluster: a head without processors, and two nodes with one each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 2**27})
    cluster.nodes_of_the_test = [cluster.add_node(num_cpus=1, object_store_memory=2**27) for _ in range(2)]
    cluster.wait_for_nodes()
    yield cluster
    import ray

    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("only_cluster")
def test_a_cluster_that_is_not_there_is_told(
    numbers_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where a cluster of this machine would be found
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    source, output = write(tmp_path / "rows.npz", 8), tmp_path / "told.csv"
    line = refused(capsys, numbers_checkpoint, source, output, "--ids", "key", "--ray", "auto")
    assert "Expected a Ray cluster at 'auto', but there is none: Could not find any running Ray instance" in line
    assert not output.with_name("told.csv.parts").exists()


def write(path: Path, rows: int) -> Path:
    x = np.random.default_rng(0).normal(size=(rows, 5))
    x[7] = np.nan
    np.savez(path, x=x, key=np.arange(rows) * 3)
    return path


@pytest.mark.slow
def test_ray_maps_the_class_as_it_is(cluster: Any, numbers_checkpoint: Path):
    import ray

    ray.init(cluster.address, ignore_reinit_error=True, log_to_driver=False)
    x = np.random.default_rng(0).normal(size=(500, 5))
    rows = ray.data.from_items([{"key": row, "x": x[row]} for row in range(500)], override_num_blocks=5)
    told = rows.map_batches(
        ScoreBatch,
        fn_constructor_args=[str(numbers_checkpoint)],
        fn_constructor_kwargs={"strategy": "loop"},
        batch_size=64,
        compute=ray.data.ActorPoolStrategy(size=2),
    ).to_pandas()
    told = told.sort_values("key")
    assert told["key"].tolist() == list(range(500))
    due = ScoreBatch(numbers_checkpoint, strategy="loop")({"x": x})
    np.testing.assert_allclose(told["mc.mean.class-1"], due["mc.mean.class-1"], atol=1e-5)
    assert np.array_equal(told["deterministic.probability"], due["deterministic.probability"])
    assert told["ood.flagged"].tolist() == due["ood.flagged"].tolist()


@pytest.mark.slow
def test_a_node_that_is_killed_loses_and_doubles_no_row(cluster: Any, numbers_checkpoint: Path, tmp_path: Path):
    from threading import Thread

    source = write(tmp_path / "rows.npz", 20_000)
    given = ("--ids", "key", "--part-rows", 100, "--strategy", "loop")
    whole = score(numbers_checkpoint, source, tmp_path / "whole.parquet", *given)
    folder = tmp_path / "told.parquet.parts"
    killed: list[int] = []

    def kill() -> None:
        while len(list(folder.glob("part-*.parquet"))) < 20:
            time.sleep(0.01)
        cluster.remove_node(cluster.nodes_of_the_test.pop(), allow_graceful=False)
        killed.append(len(list(folder.glob("part-*.parquet"))))

    killer = Thread(target=kill)
    killer.start()
    ray = ("--ray", cluster.address, "--ray-workers", 2)
    code = main([str(each) for each in (numbers_checkpoint, source, tmp_path / "told.parquet", *given, *ray)])
    killer.join()
    assert code == 0
    assert 20 <= killed[0] < 200
    told = READERS[".parquet"](tmp_path / "told.parquet")
    assert told["row"].to_list() == [row for row in range(20_000) if row != 7]
    assert told.equals(whole)
    rejects = [
        path.with_name(f"{path.name}.rejects.jsonl").read_text()
        for path in (tmp_path / "told.parquet", tmp_path / "whole.parquet")
    ]
    assert rejects[0] == rejects[1] != ""
