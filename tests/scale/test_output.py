from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dubio.models.errors import InvalidInput
from dubio.scale.cli import parser, prepare
from dubio.scale.output import Output
from dubio.scale.part import Part, PartScorer
from dubio.scale.readers.source import open_source
from tests.scale.conftest import READERS, refused, score

ROWS = 40
PART = 6
BAD = (5, 17, 18, 39)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Rows of five numbers, four of which are none."""
    return write(tmp_path / "rows.csv", ROWS, BAD)


def write(path: Path, rows: int, bad: tuple[int, ...]) -> Path:
    x = np.random.default_rng(0).normal(size=(rows, 5)).round(3)
    lines = [f"k{row},{','.join('none' if row in bad else str(each) for each in x[row])}" for row in range(rows)]
    path.write_text("key,a,b,c,d,e\n" + "\n".join(lines) + "\n")
    return path


def arguments(checkpoint: Path, source: Path, output: Path) -> tuple[object, ...]:
    # One strategy for all, so that parts of several processes are equal to the last bit.
    return (checkpoint, source, output, "--ids", "key", "--part-rows", PART, "--strategy", "loop")


def leave(given: tuple[object, ...], kept: Iterable[int]) -> Output:
    """What a process leaves that is killed after some parts."""
    job, spec, output = prepare(parser().parse_args(list(map(str, given))))
    origin = open_source(Path(job.input), spec, job.reading)
    with output.begun(job.identity(origin.stamp()), "--overwrite" in given):
        spans = list(origin.spans(job.part_rows))
        output.keep_spans(spans)
        scorer = PartScorer(job)
        for number in kept:
            output.write(scorer.score(number, spans[number]))
    return output


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_job_goes_on_from_whatever_parts_are_there(
    suffix: str, numbers_checkpoint: Path, source: Path, tmp_path: Path
):
    whole = score(*arguments(numbers_checkpoint, source, tmp_path / f"whole{suffix}"))
    rejects = (tmp_path / f"whole{suffix}.rejects.jsonl").read_text()
    assert whole["row"].to_list() == [row for row in range(ROWS) if row not in BAD]
    assert [json.loads(line)["row"] for line in rejects.splitlines()] == list(BAD)
    given = arguments(numbers_checkpoint, source, tmp_path / f"told{suffix}")
    output = leave(given, (6, 0, 3))
    # What a kill leaves: half a file under another name, and the rejects of a part that is not there.
    (output.folder / f"part-000001{suffix}.tmp").write_bytes(b"half")
    (output.folder / "rejects-000002").write_bytes(b'{"row": 17, "reason": "from before the kill"}\n')
    assert output.done() == {0, 3, 6}
    assert score(*given).equals(whole)
    assert output.rejects.read_text() == rejects


def test_a_job_that_was_killed_while_it_joined_goes_on(numbers_checkpoint: Path, source: Path, tmp_path: Path):
    given = arguments(numbers_checkpoint, source, tmp_path / "told.csv")
    output = leave(given, range(7))
    shutil.copytree(output.folder, tmp_path / "kept")
    whole = score(*given)
    rejects = output.rejects.read_text()
    for there in ((), (output.rejects,), (output.rejects, output.path)):  # by the order in which they are renamed
        shutil.copytree(tmp_path / "kept", output.folder)
        (output.folder / "joining").touch()
        (tmp_path / ".told.csv.tmp").write_bytes(b"half")
        for path in {output.rejects, output.path} - set(there):
            path.unlink()
        assert score(*given).equals(whole)
        assert output.rejects.read_text() == rejects
    shutil.copytree(tmp_path / "kept", tmp_path / "told.csv.parts.old")  # killed while it removed the parts
    score(*given, "--overwrite")
    assert not (tmp_path / "told.csv.parts.old").exists()


def test_what_is_there_already_is_not_replaced_unless_asked(
    numbers_checkpoint: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = arguments(numbers_checkpoint, source, tmp_path / "told.csv")
    (tmp_path / "told.csv").write_text("of another program")
    assert "told.csv: is there already; add --overwrite" in refused(capsys, *given)
    assert (tmp_path / "told.csv").read_text() == "of another program"
    leave((*given, "--overwrite"), [0])
    assert (tmp_path / "told.csv").read_text() == "of another program"  # until there is another
    whole = score(*given, "--overwrite")
    assert len(whole) == ROWS - len(BAD)
    write(source, ROWS, ())
    assert len(score(*given, "--overwrite")) == ROWS
    assert not (tmp_path / "told.csv.rejects.jsonl").exists()
    # Also where it came while parts were scored.
    given = arguments(numbers_checkpoint, source, tmp_path / "new.csv")
    output = leave(given, [0])
    output.path.write_text("of another program")
    assert "new.csv: is there already" in refused(capsys, *given)


def test_parts_of_another_job_are_not_taken(
    numbers_checkpoint: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = arguments(numbers_checkpoint, source, tmp_path / "told.csv")
    leave(given, [0])
    assert "holds parts of another job, whose samples is None and not 4" in refused(capsys, *given, "--samples", 4)
    write(source, ROWS + 1, BAD)
    assert "holds parts of another job, whose stamp is" in refused(capsys, *given)
    assert len(score(*given, "--overwrite")) == ROWS + 1 - len(BAD)


def test_two_processes_do_not_write_one_output(tmp_path: Path):
    one, other = (Output(tmp_path / "told.csv", tmp_path / "r", ".csv") for _ in range(2))
    with (
        one.begun({"input": "a"}, False),
        pytest.raises(InvalidInput, match="another dubio-score is writing there"),
        other.begun({"input": "a"}, False),
    ):
        pass
    with other.begun({"input": "a"}, False):
        pass


def test_a_header_of_several_lines_is_there_once(tmp_path: Path):
    output = Output(tmp_path / "told.csv", tmp_path / "r", ".csv")
    frame = pl.DataFrame({"a\nb": ["x", "y"], '"c",': [1, 2]})
    with output.begun({}, False):
        for number in range(3):
            output.write(Part(number, 2, frame.write_csv().encode(), b""))
        assert output.finish(3) == 0
    with (tmp_path / "told.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["a\nb", '"c",'], *([["x", "1"], ["y", "2"]] * 3)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills")
def test_a_job_that_is_killed_at_three_points_ends_as_if_it_had_not_been(numbers_checkpoint: Path, tmp_path: Path):
    source = write(tmp_path / "rows.csv", 3600, BAD)
    whole = score(*arguments(numbers_checkpoint, source, tmp_path / "whole.parquet"))
    given = arguments(numbers_checkpoint, source, tmp_path / "told.parquet")
    command = [sys.executable, "-m", "dubio.scale", *map(str, given)]
    folder = tmp_path / "told.parquet.parts"
    reached = []
    for parts in (1, 150, 400):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while len(list(folder.glob("part-*.parquet"))) < parts:
                assert process.poll() is None
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        reached.append(len(list(folder.glob("part-*.parquet"))))
        assert not (tmp_path / "told.parquet").exists()
    assert 1 <= reached[0] < 150 <= reached[1] < 400 <= reached[2] < 600
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "rows are scored already; going on." in outcome.stderr
    assert READERS[".parquet"](tmp_path / "told.parquet").equals(whole)
