from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dubio import load
from dubio.models.errors import InvalidInput
from dubio.scale import ScoreBatch
from tests.serving.kinds import FILES, ROWS, TEXTS


@pytest.fixture(scope="module")
def batch(numbers_checkpoint: Path) -> ScoreBatch:
    return ScoreBatch(numbers_checkpoint, bad_rows="mark", strategy="loop")


def test_columns_are_mapped_to_columns(batch: ScoreBatch, numbers_checkpoint: Path, rows: np.ndarray):
    keys = np.array([f"r{number}" for number in range(len(rows))])
    told = batch({"key": keys, "x": rows})
    assert {len(values) for values in told.values()} == {len(rows)}
    assert all(isinstance(values, np.ndarray) for values in told.values())
    assert told["key"] is keys
    assert "x" not in told
    assert told["error"].tolist() == [None] * len(rows)
    answer = load(numbers_checkpoint, strategy="loop").predict(rows)
    np.testing.assert_allclose(told["mc.mean.class-2"], answer.mc_mean[:, 2], atol=1e-5)
    assert told["ood.flagged"].tolist() == answer.flagged.tolist()


def test_many_rows_are_asked_about_in_several_batches(batch: ScoreBatch, rows: np.ndarray):
    many = np.tile(rows, (20, 1))
    assert len(many) > batch.most_rows
    told = batch({"x": many})
    values = told["mc.mean.class-0"].reshape(20, len(rows))
    np.testing.assert_allclose(values, np.broadcast_to(values[0], values.shape), atol=1e-5)
    assert np.array_equal(told["deterministic.probability"], np.tile(told["deterministic.probability"][:31], 20))


def test_a_bad_row_is_marked_and_takes_no_other_with_it(batch: ScoreBatch, rows: np.ndarray):
    x = rows[:6].copy()
    weights = next(batch.predictor.network.parameters()).detach().numpy()
    # The latter is finite, but makes the logits overflow: all of it goes into one unit with the same sign.
    x[1, 3], x[4] = np.nan, 3.4e38 * np.sign(weights[np.abs(weights).sum(1).argmax()])
    told = batch({"x": x})
    good = [0, 2, 3, 5]
    assert [row for row, error in enumerate(told["error"]) if error is None] == good
    assert told["error"][1].startswith("Expected finite values, but it has NaN")
    assert "but it makes its logits overflow" in told["error"][4]
    assert told["deterministic.label"][1] is None
    assert told["ood.flagged"][4] is None
    assert np.isnan(told["mc.mean.class-0"][[1, 4]]).all()
    alone = batch({"x": x[good]})
    np.testing.assert_allclose(told["mc.mean.class-0"][good], alone["mc.mean.class-0"], atol=1e-5)
    assert told["deterministic.label"][good].tolist() == alone["deterministic.label"].tolist()
    assert set(batch({"x": x[[1]]})) == set(told)


def test_a_bad_row_stops_where_nothing_else_was_asked_for(numbers_checkpoint: Path, rows: np.ndarray):
    batch = ScoreBatch(numbers_checkpoint, strategy="loop")
    assert "error" not in batch({"x": rows})
    rows[2, 0] = np.inf
    with pytest.raises(InvalidInput, match="Row 2 of the batch: Expected finite values, but it has NaN, infinity"):
        batch({"x": rows})


def test_tables_texts_and_image_files_are_taken_as_users_have_them(
    table_checkpoint: Path, text_checkpoint: Path, pixels_checkpoint: Path
):
    table = ScoreBatch(table_checkpoint, strategy="loop", bad_rows="mark")
    columns = {name: np.array([row[name] for row in ROWS], dtype=object) for name in ROWS[0]}
    told = table({**columns, "note": np.arange(3)})
    assert told["note"].tolist() == [0, 1, 2]
    expected = load(table_checkpoint, strategy="loop").predict(ROWS)
    np.testing.assert_allclose(told["mc.std.class-1"], expected.mc_std[:, 1], atol=1e-5)
    columns["age"][1] = "18.5"  # as a file of texts has it
    assert table(columns)["error"].tolist() == [None] * 3
    text = ScoreBatch(text_checkpoint, strategy="loop", field="said", bad_rows="mark")
    told = text({"said": np.array([*TEXTS, " ", 7], dtype=object)})
    expected = load(text_checkpoint, strategy="loop").predict(TEXTS)
    np.testing.assert_allclose(told["mc.mean.class-1"][:3], expected.mc_mean[:, 1], atol=1e-5)
    assert told["error"][3:].tolist() == [
        "Expected the text to hold words, but got ' '.",
        "Expected the text to be a text, but got the number 7.",
    ]
    pixels = ScoreBatch(pixels_checkpoint, strategy="loop", bad_rows="mark")
    told = pixels({"bytes": np.array([*FILES, b"GIF89a"], dtype=object), "path": np.arange(4)})
    assert told["path"].tolist() == [0, 1, 2, 3]
    assert told["error"][:3].tolist() == [None] * 3
    assert "it is a GIF file; convert it" in told["error"][3]


def test_columns_that_do_not_fit_are_refused(table_checkpoint: Path, batch: ScoreBatch, rows: np.ndarray):
    with pytest.raises(InvalidInput, match=r"Expected a column 'x', but there is none; there are 'y'\."):
        batch({"y": rows})
    for name in ("mc.mean", "row", "error"):
        with pytest.raises(InvalidInput, match=f"but got '{name}': answers have"):
            batch({"x": rows, name: np.arange(len(rows))})
    with pytest.raises(InvalidInput, match=r"did you mean `incme`\?"):
        ScoreBatch(table_checkpoint, strategy="loop")(
            {"age": np.zeros(1), "incme": np.zeros(1), "city": np.zeros(1), "member": np.zeros(1)}
        )


def test_numbers_of_members_that_cannot_answer_are_refused_at_once(numbers_checkpoint: Path):
    with pytest.raises(InvalidInput, match=r"Expected `samples` to be an integer in \[2, 16\]"):
        ScoreBatch(numbers_checkpoint, samples=17, strategy="loop")
