from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dubio.training.readers import npz_rows
from dubio.training.readers.npz_rows import read_rows, shape_of

ROWS = np.array([0, 1, 7, 8, 9, 30])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, ">i4"])
def test_rows_are_those_of_the_array(save, order: str, dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    x = np.asarray(np.random.default_rng(0).integers(0, 200, (31, 2, 3)), dtype=dtype, order=order)
    save(tmp_path / "a.npz", x=x, y=np.arange(3))
    assert shape_of(tmp_path / "a.npz", "x") == (31, 2, 3)
    for block in (1, 100, 2**22):
        monkeypatch.setattr(npz_rows, "BLOCK", block)
        for rows in (ROWS, np.arange(31), np.array([], dtype=np.int64)):
            found = read_rows(tmp_path / "a.npz", "x", rows)
            assert np.array_equal(found, x[rows])
            assert found.dtype == x.dtype


def test_the_other_rows_are_never_in_memory(tmp_path: Path):
    x = np.zeros((4000, 4000), dtype=np.float32)
    x[:, 0] = np.arange(4000)
    np.savez(tmp_path / "a.npz", x=x)
    del x
    tracemalloc.start()
    try:
        found = read_rows(tmp_path / "a.npz", "x", np.arange(0, 4000, 8))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found[:, 0].tolist() == list(range(0, 4000, 8))
    # An eighth of 64 MB, and two blocks that are being read.
    assert peak < 8e6 + 4 * npz_rows.BLOCK


def test_what_holds_python_objects_or_is_not_there_is_refused(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=np.array([{}]))
    with pytest.raises(ValueError, match="Python objects"):
        read_rows(tmp_path / "a.npz", "x", np.array([0]))
    with pytest.raises(KeyError):
        shape_of(tmp_path / "a.npz", "y")
