from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.scale.conftest import refused, score


def test_what_was_done_is_said_in_a_line(
    numbers_checkpoint: Path, rows: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    np.savez(tmp_path / "rows.npz", x=rows)
    score(numbers_checkpoint, tmp_path / "rows.npz", tmp_path / "told.csv")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dubio-score: 31 rows scored in 0:0")
    assert line.endswith(f"{tmp_path / 'told.csv'} holds 31.")


def test_a_source_without_rows_is_refused(numbers_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "rows.csv").write_text("a,b,c,d,e\n")
    line = refused(capsys, numbers_checkpoint, tmp_path / "rows.csv", tmp_path / "told.csv")
    assert "rows.csv: expected rows, but it has none" in line
