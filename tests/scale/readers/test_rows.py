from __future__ import annotations

import os
from pathlib import Path

from dubio.scale.readers.rows import objects, stamp_file


def test_lists_of_one_length_stay_values():
    array = objects([[1, 2], [3, 4]])
    assert array.shape == (2,)
    assert array.tolist() == [[1, 2], [3, 4]]
    assert objects([]).shape == (0,)


def test_a_file_has_another_stamp_once_it_is_written(tmp_path: Path):
    path = tmp_path / "a"
    path.write_text("1")
    before = stamp_file(path)
    assert stamp_file(path) == before
    path.write_text("2")
    os.utime(path, ns=(0, 1))
    assert stamp_file(path) != before
    assert stamp_file(path) == "1 bytes of 1"
