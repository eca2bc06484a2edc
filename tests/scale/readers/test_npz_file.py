from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.scale.readers.npz_file import NpzFile
from dubio.scale.readers.rows import Reading

IMAGES = InputSpec(kind="image", shape=(1, 2, 3), mean=(0.0,), std=(1.0,), low=0, high=9)
X = np.arange(60, dtype=np.uint8).reshape(10, 2, 3)
KEYS = np.array([f"ü{row}" for row in range(10)])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("rows", [1, 4, 10, 11])
def test_spans_are_read_in_any_order(save: object, rows: int, tmp_path: Path):
    save(tmp_path / "a.npz", x=X, key=KEYS, number=np.arange(10.0), y=np.array([{}] * 10))
    file = NpzFile(tmp_path / "a.npz", IMAGES, Reading(ids=("key", "number")))
    spans = list(file.spans(rows))
    for order in (spans, spans[::-1]):
        batches = sorted((b for span in order for b in file.read(span, 3)), key=lambda batch: batch.first)
        assert np.array_equal(np.concatenate([batch.inputs["x"] for batch in batches]), X)
        assert [key for batch in batches for key in batch.ids["key"]] == KEYS.tolist()
        assert [number for batch in batches for number in batch.ids["number"]] == list(range(10))


@pytest.mark.parametrize("shape", [(10, 6), (10, 1, 2, 3), (10, 2, 3)])
def test_inputs_may_be_flat_or_have_their_axis_of_one_channel(shape: tuple[int, ...], tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=X.reshape(shape))
    file = NpzFile(tmp_path / "a.npz", IMAGES, Reading())
    (batch,) = (batch for span in file.spans(10) for batch in file.read(span, 10))
    assert batch.inputs["x"].shape == shape


@pytest.mark.parametrize(
    ("arrays", "ids", "said"),
    [
        ({"y": X}, (), "Expected a column 'x'"),
        ({"x": X.reshape(10, 3, 2)}, (), r"Expected numbers of shape \[N, 1, 2, 3\] or \[N, 2, 3\] or \[N, 6\]"),
        ({"x": X.astype(str)}, (), "but got <U"),
        ({"x": np.array([{}] * 10)}, (), "it holds Python objects"),
        ({"x": np.asfortranarray(X)}, (), "in Fortran's order"),
        ({"x": np.float64(1)}, (), "it holds one value"),
        ({"x": X, "key": KEYS[:9]}, ("key",), "a number or a text for each of 10 rows"),
        ({"x": X}, ("key",), "Expected a column 'key' to carry over"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict, ids: tuple[str, ...], said: str, tmp_path: Path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InvalidInput, match=said):
        NpzFile(tmp_path / "a.npz", IMAGES, Reading(ids=ids))


def test_what_is_no_archive_or_ends_early_is_refused(tmp_path: Path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"none")
    with pytest.raises(InvalidInput, match=r"Expected an \.npz file of plain arrays"):
        NpzFile(path, IMAGES, Reading())
