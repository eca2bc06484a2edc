"""Texts of one's own: CSV files and JSON lines."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubio.models.errors import InvalidInput, did_you_mean
from dubio.models.inputs.names import tidy
from dubio.models.inputs.text import UNKNOWN, Tokens
from dubio.training.data.file_module import FileDataModule
from dubio.training.errors import NO_QUANTITIES, DataWarning, UnreadableData
from dubio.training.readers import tokenizer
from dubio.training.readers.csv_reader import read_rows
from dubio.training.readers.look_alikes import refuse_look_alikes
from dubio.training.readers.tokenizer import Kind
from dubio.training.splits.dataset import Dataset, Examples, roles
from dubio.training.splits.random_splits import IntArray, SplitName
from dubio.training.splits.timestamps import rank_times


class Text(FileDataModule):
    """Texts with labels, from a .csv or .tsv file with a header or from JSON lines (.jsonl: an object a line).

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
        length: Tokens of an input; longer texts are cut, and how many is said.
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
        self.text, self.label, self.class_names = tidy(text), tidy(label), classes
        self.split, self.group, self.time = (None if name is None else tidy(name) for name in (split, group, time))
        self.kind, self.tokens, self.lowercase, self.length = tokenizer, tokens, lowercase, length

    def read(self) -> Dataset:
        rows = list(self._rows(self.file()))
        if not rows:
            raise UnreadableData(f"{self.path}: expected rows, but it has none.")
        texts, at = self._values(rows, self.text), lambda row: f"line {rows[row][0]}"
        self._refuse_look_alikes(rows)
        labels_N, classes = self.unlabelled(len(rows)) or self.encode_labels(
            np.array(list(map(tidy, self._values(rows, self.label)))), self.class_names, f"`{self.label}`", at
        )
        own = None
        if self.split is not None and self.purpose != "predict":
            own = np.array(list(map(tidy, self._values(rows, self.split))))
        parts = self.divide(labels_N, classes, own, self._groups(rows), self._times(rows))
        learned = self.tokenizer or tokenizer.learn(
            [texts[row] for row in parts["train"]], self.kind, self.tokens, self.lowercase, self.length
        )
        try:
            reader = Tokens(learned)
            tokens = reader.split(texts, lambda row: f"`{self.text}` in line {rows[row][0]}")
        except InvalidInput as error:
            raise UnreadableData(f"{self.path}: {error}") from error
        self._say_what_is_lost(tokens, parts)
        splits = Examples(reader.fill(tokens), labels_N).divide(parts)
        ids = {name: [self._carried(row, name, line) for line, row in rows] for name in self.ids}
        columns = dict.fromkeys(name for _, row in rows for name in row)
        used = {"text": self.text, "group": self.group, "time": self.time, "split": self.split, "target": self.label}
        return Dataset(splits, classes, tokenizer.describe(learned), parts, at, ids, roles(columns, (), **used))

    def settings(self) -> dict[str, Any]:
        own = {"split": self.split, "group": self.group, "time": self.time, "tokenizer": self.kind}
        more = {"tokens": self.tokens, "lowercase": self.lowercase, "length": self.length}
        return {**super().settings(), **own, **more}

    def reading(self) -> dict[str, Any]:
        return {**super().reading(), "text": self.text, "label": self.label}

    def _groups(self, rows: list[tuple[int, dict[str, Any]]]) -> npt.NDArray[np.str_] | None:
        return np.array(self._values(rows, self.group)) if self.group and self.divides else None

    def _times(self, rows: list[tuple[int, dict[str, Any]]]) -> IntArray | None:
        if self.time is None or not self.divides:
            return None
        try:
            return rank_times(self._values(rows, self.time), self.time, lambda row: f"line {rows[row][0]}")
        except UnreadableData as error:
            raise UnreadableData(f"{self.path}: {error}") from error

    def _say_what_is_lost(self, tokens: Sequence[Sequence[int]], parts: Mapping[SplitName, IntArray]) -> None:
        """How many texts are cut, and which share of the tokens that did not train the vocabulary does not know."""
        cut = sum(len(each) > self.length for each in tokens)
        trained = set(parts["train"].tolist()) if "train" in parts else set()
        others = [token for row, each in enumerate(tokens) if row not in trained for token in each[: self.length]]
        unknown = others.count(UNKNOWN) / max(len(others), 1)
        facts = []
        if cut:
            facts.append(
                f"{cut} of {len(tokens)} texts have more than {self.length} tokens and are cut; raise "
                "`data.init_args.length` if what they end with matters"
            )
        if unknown:
            cure = "; set `data.init_args.tokenizer: bpe`, which spells them" if self.kind == "word" else ""
            facts.append(
                f"{unknown:.1%} of the tokens outside the training rows are unknown{cure if unknown > 0.2 else ''}"
            )
        if facts:
            warnings.warn(f"{self.path}: {'; '.join(facts)}.", DataWarning, stacklevel=2)

    def _refuse_look_alikes(self, rows: Sequence[tuple[int, dict[str, Any]]]) -> None:
        """Refuses labels and keys that a reader takes for one."""
        labels: dict[str, str] = {}
        keys: dict[tuple[str, ...], str] = {}
        for line, row in rows:
            if self.label in row:
                labels.setdefault(str(row[self.label]), f"line {line}")
            keys.setdefault(tuple(row), f"line {line}")
        refuse_look_alikes(f"{self.path}: expected `{self.label}` to", labels, "class", "write it one way")
        for names, where in keys.items():
            refuse_look_alikes(f"{self.path}: expected keys to", dict.fromkeys(names, where), "key", "rename one")

    def _rows(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows with the number of their line."""
        kind = path.suffix.lower()
        if kind in {".csv", ".tsv"}:
            rows = read_rows(path)
            names = [tidy(name) for name in next(rows)[1]]
            yield from ((line, dict(zip(names, row, strict=True))) for line, row in rows)
            return
        if kind not in {".jsonl", ".ndjson", ".json"}:
            raise UnreadableData(f"{path}: expected a .csv, .tsv or .jsonl file; rename or convert it.")
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield number, self._object(line, number)
        except UnicodeDecodeError as error:
            raise UnreadableData(
                f"{path}: expected text in UTF-8, but byte {error.start} is not; convert it."
            ) from error

    def _object(self, line: str, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line, object_pairs_hook=lambda pairs: self._unique(pairs, number))
        except (json.JSONDecodeError, RecursionError) as error:
            raise UnreadableData(f"{self.path}: line {number} is no JSON: {error}.") from error
        if not isinstance(row, dict):
            raise UnreadableData(
                f"{self.path}: expected line {number} to be an object like "
                f'{{"{self.text}": "...", "{self.label}": "..."}}, but it is not.'
            )
        return row

    def _unique(self, pairs: list[tuple[str, Any]], number: int) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise UnreadableData(
                    f"{self.path}: expected every key of line {number} once, but got {name[:40]!r} twice."
                )
        return dict(pairs)

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
