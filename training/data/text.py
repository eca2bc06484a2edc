"""Texts of one's own: CSV files and JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubio.models.errors import InvalidInput, did_you_mean
from dubio.models.inputs.text import Tokens
from dubio.training.data import tokenizer
from dubio.training.data.dataset import Dataset, Examples
from dubio.training.data.file_module import FileDataModule
from dubio.training.data.splits import IntArray
from dubio.training.data.timestamps import rank_times
from dubio.training.data.tokenizer import Kind
from dubio.training.errors import NO_QUANTITIES, UnreadableData


class Text(FileDataModule):
    """Texts with labels, from a .csv file with a header or from JSON lines (.jsonl: an object a line).

    The tokenizer is learned on the training texts and kept in the checkpoint, so that the service takes sentences.

    Args:
        path: The file.
        text: Name of the column or key with the texts.
        label: Name of the column or key with the labels.
        split: Name of the column or key that says which split a row belongs to; the fractions are then not used.
        group: Name of a column or key of what rows have in common, such as the author: no group is in two splits.
        time: Name of a column or key of numbers or dates: each split is later than the one before, the test split last.
        classes: Names of the classes in the order of the logits; by default those that occur, sorted.
        tokenizer: Whole words (`word`), or parts of words (`bpe`), which can spell what training texts did not have.
        tokens: Most tokens that the vocabulary may have; the most frequent are kept.
        lowercase: Whether capitals count as small letters.
        length: Tokens of an input; longer texts are cut.
    """

    def __init__(
        self,
        path: str,
        text: str = "text",
        label: str = "label",
        split: str | None = None,
        group: str | None = None,
        time: str | None = None,
        classes: tuple[str, ...] | None = None,
        tokenizer: Kind = "word",
        tokens: int = 8000,
        lowercase: bool = True,
        length: int = 32,
        **settings: Any,
    ) -> None:
        super().__init__(path, **settings)
        self.text, self.label, self.split, self.class_names = text, label, split, classes
        self.group, self.time = group, time
        self.kind, self.tokens, self.lowercase, self.length = tokenizer, tokens, lowercase, length

    def read(self) -> Dataset:
        rows = list(self._rows(self.file()))
        if not rows:
            raise UnreadableData(f"{self.path}: expected rows, but it has none.")
        texts, at = self._values(rows, self.text), lambda row: f"line {rows[row][0]}"
        labels_N, classes = self.unlabelled(len(rows)) or self.encode_labels(
            np.array(self._values(rows, self.label)), self.class_names, f"`{self.label}`", at
        )
        own = None if self.split is None or self.purpose == "predict" else np.array(self._values(rows, self.split))
        parts = self.divide(labels_N, classes, own, self._groups(rows), self._times(rows))
        learned = self.tokenizer or tokenizer.learn(
            [texts[row] for row in parts["train"]], self.kind, self.tokens, self.lowercase, self.length
        )
        try:
            x = Tokens(learned).read(texts)
        except InvalidInput as error:
            raise UnreadableData(f"{self.path}, counted from 0: {error}") from error
        splits = Examples(x, labels_N).divide(parts)
        ids = {name: [self._carried(row, name, line) for line, row in rows] for name in self.ids}
        return Dataset(splits, classes, tokenizer.describe(learned), parts, at, ids)

    def settings(self) -> dict[str, Any]:
        own = {"tokenizer": self.kind, "tokens": self.tokens, "lowercase": self.lowercase, "length": self.length}
        return {**super().settings(), **own}

    def _groups(self, rows: list[tuple[int, dict[str, Any]]]) -> npt.NDArray[np.str_] | None:
        return np.array(self._values(rows, self.group)) if self.group and self.divides else None

    def _times(self, rows: list[tuple[int, dict[str, Any]]]) -> IntArray | None:
        if self.time is None or not self.divides:
            return None
        try:
            return rank_times(self._values(rows, self.time), self.time, lambda row: f"line {rows[row][0]}")
        except UnreadableData as error:
            raise UnreadableData(f"{self.path}: {error}") from error

    def _rows(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows with the number of their line."""
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                if path.suffix == ".csv":
                    reader = csv.DictReader(file, strict=True)
                    for row in reader:
                        if None in row or None in row.values():
                            raise UnreadableData(
                                f"{path}: expected {len(reader.fieldnames or [])} values in line {reader.line_num}, as "
                                "in the header, but it has more or fewer; quote what contains a comma."
                            )
                        yield reader.line_num, row
                    return
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield number, self._object(line, number)
        except UnicodeDecodeError as error:
            raise UnreadableData(
                f"{path}: expected text in UTF-8, but byte {error.start} is not; convert it."
            ) from error
        except csv.Error as error:
            raise UnreadableData(f"{path}: cannot be read as CSV: {error}.") from error

    def _object(self, line: str, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UnreadableData(f"{self.path}: line {number} is no JSON: {error}.") from error
        if not isinstance(row, dict):
            raise UnreadableData(
                f"{self.path}: expected line {number} to be an object like "
                f'{{"{self.text}": "...", "{self.label}": "..."}}, but it is not.'
            )
        return row

    def _values(self, rows: list[tuple[int, dict[str, Any]]], key: str) -> list[str]:
        return [self._value(row, key, line) for line, row in rows]

    def _carried(self, row: dict[str, Any], key: str, line: int) -> Any:
        """What a prediction carries over, as it is; what no table can hold, as JSON."""
        self._require(row, key, line)
        return json.dumps(row[key]) if isinstance(row[key], list | dict) else row[key]

    def _require(self, row: dict[str, Any], key: str, line: int) -> None:
        if key not in row:
            cure = did_you_mean(key, map(str, row), f"it has {', '.join(map(str, row))[:200]}.")
            raise UnreadableData(f"{self.path}: expected `{key}` in line {line}, but it is absent; {cure}")

    def _value(self, row: dict[str, Any], key: str, line: int) -> str:
        self._require(row, key, line)
        value = row[key]
        if (type(value) is int and key != self.text) or (type(value) is float and key == self.time):
            return str(value)
        if type(value) is float and key == self.label:
            raise UnreadableData(
                f"{self.path}: expected `{key}` in line {line} to be a name or a whole number, but got {value!r}. "
                f"{NO_QUANTITIES}"
            )
        if not isinstance(value, str) or not value.strip():
            raise UnreadableData(
                f"{self.path}: expected `{key}` in line {line} to be a text with words, but got {value!r:.60}; fill it "
                "in, or leave the row out."
            )
        return value
