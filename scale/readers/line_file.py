"""Files of lines as a source: JSON lines, an object a line, and texts, one a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.models.inputs.names import tidy
from dubio.models.inputs.tabular import Table
from dubio.scale.encode import TEXT
from dubio.scale.readers.layout import Layout
from dubio.scale.readers.rows import Reading, Rows, Span, objects, stamp_file, texts

MOST_BYTES = 2**26  # of a line
LOOKED_AT = 100  # rows that say which keys there are


class Line(NamedTuple):
    """A line of a file.

    Attributes:
        number: The first of the file being 1.
        offset: Where it begins.
        content: Without its end; None if it is too long.
    """

    number: int
    offset: int
    content: bytes | None


class LineFile:
    """A file with a row a line. Blank lines of JSON are left out; of texts they are rows.

    Args:
        path: Of a .jsonl, .ndjson or .txt file.
        spec: What the model takes.
        reading: How the file is read.

    Raises:
        InvalidInput: If its first row does not fit the model.
    """

    def __init__(self, path: Path, spec: InputSpec, reading: Reading) -> None:
        self.path, self.spec, self.reading = path, spec, reading
        self.is_json = path.suffix.lower() != ".txt"
        held = always = [reading.field or TEXT]
        if not self.is_json and spec.kind != "text":
            raise InvalidInput(f"Expected a model of texts for a .txt file, but this one takes {spec.kind} input.")
        if self.is_json:
            read = [self._object(line) for line in islice(self._lines(0, 1), LOOKED_AT)]
            rows = [row for row in read if not isinstance(row, str)]
            if not rows:
                raise InvalidInput(next(map(str, read), "Expected rows, but the file has none."))
            held = list(dict.fromkeys(name for row in rows for name in row))
            always = [name for name in held if all(name in row for row in rows)]
        self.layout = Layout.of(held, spec, reading, always=always)

    def stamp(self) -> str:
        return stamp_file(self.path)

    def spans(self, rows: int) -> Iterator[Span]:
        lines, first = self._lines(0, 1), 0
        for line in lines:
            count = 1 + sum(1 for _ in islice(lines, rows - 1))
            yield Span(first, count, line.offset, line.number)
            first += count

    def read(self, span: Span, most: int) -> Iterator[Rows]:
        lines, first = islice(self._lines(span.offset, span.line), span.rows), span.first
        while batch := list(islice(lines, most)):
            yield self._batch(batch, first)
            first += len(batch)

    def _batch(self, lines: list[Line], first: int) -> Rows:
        read = [self._object(line) for line in lines]
        errors = [each if isinstance(each, str) else self._problem(each) for each in read]
        rows = [{} if isinstance(each, str) else each for each in read]
        inputs = {name: objects([row.get(name) for row in rows]) for name in self.layout.inputs}
        ids = {name: [_id(row.get(name)) for row in rows] for name in self.reading.ids}
        return Rows(first, inputs, texts(ids), errors, [line.number for line in lines])

    def _problem(self, row: dict[str, Any]) -> str | None:
        """Why the columns of a row are not those that the model takes; None if they are."""
        absent = [name for name in self.layout.inputs if name not in row]
        if absent:
            table = isinstance(self.spec.reader, Table)
            cure = "; write null for a value that is missing." if table else "."
            return f"Expected a value for {', '.join(map(repr, absent[:5]))}, but there is none{cure}"
        if isinstance(self.spec.reader, Table) and len(row) > len(self.layout.inputs):
            aside = {*self.reading.ids, *self.reading.ignore}
            return self.layout.unknown([name for name in row if name not in aside])
        return None

    def _object(self, line: Line) -> dict[str, Any] | str:
        """What a line holds by its key, or why it cannot be read."""
        if line.content is None:
            return f"Expected a line of at most {MOST_BYTES} bytes, but line {line.number} is longer."
        try:
            text = line.content.decode()
            row = json.loads(text) if self.is_json else {self.layout.inputs[0]: text}
        except UnicodeDecodeError:
            return f"Expected text in UTF-8, but line {line.number} is not; convert it."
        except (json.JSONDecodeError, RecursionError, ValueError) as error:
            return f"Line {line.number} is no JSON: {error}."
        if not isinstance(row, dict):
            return f"Expected an object with a key for each column, but line {line.number} is none."
        tidied = {tidy(name): value for name, value in row.items()}
        return tidied if len(tidied) == len(row) else row

    def _lines(self, offset: int, number: int) -> Iterator[Line]:
        with self.path.open("rb") as file:
            file.seek(offset)
            while content := file.readline(MOST_BYTES + 1):
                begins = offset
                whole = len(content) <= MOST_BYTES or content.endswith(b"\n")
                offset += len(content) + (0 if whole else _skip(file))
                if begins == 0:
                    content = content.removeprefix(b"\xef\xbb\xbf")
                if not (self.is_json and not content.strip()):
                    yield Line(number, begins, content.rstrip(b"\r\n") if whole else None)
                number += 1


def _skip(file: IO[bytes]) -> int:
    """Goes on to the next line, and says how many bytes that were."""
    skipped = 0
    while content := file.readline(MOST_BYTES):
        skipped += len(content)
        if content.endswith(b"\n"):
            break
    return skipped


def _id(value: object) -> str | None:
    """A text as it is, and anything else as JSON: a column has one type, whatever the rows hold."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
