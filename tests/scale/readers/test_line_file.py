from __future__ import annotations

from pathlib import Path

import pytest

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.models.inputs.tabular import NumericColumn
from dubio.models.inputs.text import TokenizerSpec
from dubio.scale.readers.line_file import LineFile
from dubio.scale.readers.rows import Reading, Rows

COLUMN = NumericColumn(kind="numeric", name="age", low=0, high=9, fill=4, missing=False)
TABLE = InputSpec(kind="table", shape=(1,), mean=(0.0,), std=(1.0,), low=0, high=9, columns=[COLUMN])
WORDS = TokenizerSpec(kind="word", vocabulary=["[PAD]", "[UNK]", "a"], merges=[], lowercase=True, length=2)
TEXT = InputSpec(kind="text", shape=(2,), mean=(0.0,), std=(1.0,), low=0, high=2, tokenizer=WORDS)
LINES = [
    '{"age": 1, "key": 7}',
    "",
    '{"age": 2, "key": "b"}',
    '{"age": 3',
    "[1]",
    '{"key": "d"}',
    '{"age": 4, "key": null, "more": 1}',
    '{"age": 5, "key": {"a": [1]}, "note": 0}',
]


def read(file: LineFile, rows: int, most: int = 2) -> list[Rows]:
    """Whatever the spans hold, the last span first."""
    batches = [batch for span in reversed(list(file.spans(rows))) for batch in file.read(span, most)]
    return sorted(batches, key=lambda batch: batch.first)


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_objects_are_rows_and_what_is_none_is_told(rows: int, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(LINES))
    batches = read(LineFile(path, TABLE, Reading(ids=("key",), ignore=("note",))), rows)
    assert sum(map(len, batches)) == 7
    assert [line for batch in batches for line in batch.lines] == [1, 3, 4, 5, 6, 7, 8]
    assert [key for batch in batches for key in batch.ids["key"]] == ["7", "b", None, None, "d", None, '{"a": [1]}']
    errors = [error for batch in batches for error in batch.errors]
    ages = [age for batch in batches for age in batch.inputs["age"].tolist()]
    assert [age for age, error in zip(ages, errors, strict=True) if error is None] == [1, 2, 5]
    assert errors[2].startswith("Line 4 is no JSON: ")
    assert errors[3] == "Expected an object with a key for each column, but line 5 is none."
    assert errors[4] == "Expected a value for 'age', but there is none; write null for a value that is missing."
    assert errors[5].startswith("Expected no column that the checkpoint does not have, but got 'more'")


def test_every_line_of_a_text_file_is_a_row(tmp_path: Path):
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffa b\r\n\nü\n".encode() + b"\xff\n" + b"last")
    batches = read(LineFile(path, TEXT, Reading()), 2)
    assert [text for batch in batches for text in batch.inputs["text"]] == ["a b", "", "ü", None, "last"]
    assert batches[1].errors[1] == "Expected text in UTF-8, but line 4 is not; convert it."


def test_a_line_that_is_too_long_is_left_aside_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dubio.scale.readers.line_file.MOST_BYTES", 10)
    path = tmp_path / "texts.txt"
    path.write_text("0123456789\n" + "x" * 35 + "\nshort\n" + "y" * 11)
    batches = read(LineFile(path, TEXT, Reading()), 1)
    assert [text for batch in batches for text in batch.inputs["text"]] == ["0123456789", None, "short", None]
    assert batches[1].errors == ["Expected a line of at most 10 bytes, but line 2 is longer."]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expected rows, but the file has none"),
        ("[1]\n", "but line 1 is none"),
        ('{"aeg": 1}\n', "did you mean `aeg`"),
        ('{"age": 1, "other": 2}\n{"age": 1, "other": 2}\n', "carry it over with --ids 'other'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(text: str, said: str, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=said):
        LineFile(path, TABLE, Reading())


def test_texts_are_for_models_of_texts(tmp_path: Path):
    (tmp_path / "texts.txt").write_text("a\n")
    with pytest.raises(InvalidInput, match="this one takes table input"):
        LineFile(tmp_path / "texts.txt", TABLE, Reading())
