"""Reviewed rows as files that the data modules of training read, written while they are read from the database."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson
import sqlalchemy as sa

from dubio.serving.errors import InvalidRequest, UnknownReview
from dubio.serving.store.inputs import Form, read_array, read_instance
from dubio.serving.store.reviews import Filter
from dubio.serving.store.tables import IS_JUDGED, TRUTH, State, answers, signatures

Format = Literal["npz", "csv", "jsonl"]
MEDIA_TYPES: dict[Format, str] = {
    "npz": "application/octet-stream",
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl",
}
LABEL, TEXT = "label", "text"
# Read from the database at a time.
_ROWS = 200
# Sent at a time.
_BLOCK_BYTES = 64 * 1024
_IN_FULL = answers.c.input_form.in_([Form.ARRAY.value, Form.JSON.value])


@dataclass(frozen=True)
class Exported:
    """What an export will hold.

    Attributes:
        rows: How many.
        without_input: How many are left out because their input is not stored in full.
        signature: Of all of them.
    """

    rows: int
    without_input: int
    signature: dict[str, Any]


def plan(connection: sa.Connection, which: Filter, kind: Format) -> Exported:
    """See what there is to write.

    Args:
        connection: To read with.
        which: Rows.
        kind: Of the file.

    Raises:
        UnknownReview: There is nothing to write.
        InvalidRequest: These rows are not of one form, or not of one that such a file holds.
    """
    conditions = _conditions(which)
    count = sa.select(sa.func.count()).select_from(answers).where(*conditions)
    rows = connection.execute(count.where(_IN_FULL)).scalar_one()
    without = connection.execute(count).scalar_one() - rows
    if not rows:
        why = f"; the inputs of the {without} that match are not stored in full (`store_input`)" if without else ""
        raise UnknownReview(
            f"There is no row with a label to export{why}. Label some with PATCH /v1/reviews/ID, or choose others."
        )
    used = sa.select(answers.c.signature).where(*conditions, _IN_FULL).distinct()
    forms = connection.execute(
        sa.select(answers.c.input_form, answers.c.signature).where(*conditions, _IN_FULL).distinct()
    ).all()
    contents = connection.execute(sa.select(signatures.c.content).where(signatures.c.digest.in_(used))).scalars()
    found = [orjson.loads(content) for content in contents]
    shapes = {orjson.dumps([each["kind"], each["shape"], each["columns"]]) for each in found}
    if len(shapes) > 1 or len({form for form, _ in forms}) > 1:
        raise InvalidRequest(
            "Expected the rows of one model, which all have one form, but these have several; choose a `model`, and "
            "if need be a `version`."
        )
    signature, is_json = found[0], forms[0][0] == Form.JSON
    if kind != "jsonl" and is_json != (kind == "csv"):
        other = "csv" if is_json else "npz"
        raise InvalidRequest(
            f"Expected `format` to be {other} or jsonl for a model of {signature['kind']} input, but got {kind}; "
            "send another."
        )
    return Exported(rows, without, signature)


def write(connection: sa.Connection, which: Filter, kind: Format, exported: Exported) -> Iterator[bytes]:
    """The bytes of the file.

    Args:
        connection: That of `plan`, which sees the same rows.
        which: As planned.
        kind: As planned.
        exported: What `plan` found.
    """
    columns = (
        answers.c.id,
        answers.c.request_id,
        answers.c.row_number,
        answers.c.model,
        answers.c.version,
        answers.c.state,
        answers.c.input_form,
        answers.c.input,
        TRUTH.label(LABEL),
    )
    query = sa.select(*columns).where(*_conditions(which), _IN_FULL).order_by(answers.c.id)
    streaming = connection.execution_options(stream_results=True, yield_per=_ROWS)
    rows = streaming.execute(query).mappings()
    writers = {"npz": _npz, "csv": _csv, "jsonl": _jsonl}
    yield from _blocks(writers[kind](rows, exported))


def _blocks(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in larger parts, for sending one takes about as long as writing a row."""
    block = bytearray()
    for part in parts:
        block += part
        if len(block) >= _BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _conditions(which: Filter) -> list[sa.ColumnElement[bool]]:
    ours = [answers.c.state != State.NOT_FOR_US.value] if which.state is None else []
    return [*which.conditions(), *ours, IS_JUDGED, TRUTH.is_not(None)]


def _jsonl(rows: sa.MappingResult, exported: Exported) -> Iterator[bytes]:
    is_text = exported.signature["kind"] == "text"
    for row in rows:
        instance = read_instance(row["input_form"], row["input"])
        line = {
            (TEXT if is_text and isinstance(instance, str) else "instance"): instance,
            LABEL: row[LABEL],
            "id": row["id"],
            "request_id": row["request_id"],
            "row": row["row_number"],
            "model": row["model"],
            "version": row["version"],
        }
        yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _csv(rows: sa.MappingResult, exported: Exported) -> Iterator[bytes]:
    columns = exported.signature["columns"]
    names = [TEXT] if columns is None else columns
    label = LABEL if LABEL not in names else f"reviewed_{LABEL}"
    yield _line([*names, label])
    for row in rows:
        instance = read_instance(row["input_form"], row["input"])
        values = [instance] if columns is None else [instance.get(name) for name in columns]
        yield _line([*map(_cell, values), row[LABEL]])


def _cell(value: Any) -> Any:
    """A value as a file of one's own has it, so that it is read as a request is."""
    return str(value).lower() if isinstance(value, bool) else "" if value is None else value


def _line(cells: Sequence[Any]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(cells)
    return file.getvalue().encode()


class _Pipe(io.RawIOBase):
    """Where a zip archive is written to that is sent while it grows."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        """What was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _npz(rows: sa.MappingResult, exported: Exported) -> Iterator[bytes]:
    """Arrays `x`, `y` (names) and `id`, as `numpy.savez` writes them."""
    pipe = _Pipe()
    labels: list[str] = []
    identifiers: list[str] = []
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as file:
            shape = (exported.rows, *exported.signature["shape"])
            np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for row in rows:
                file.write(np.ascontiguousarray(read_array(row["input"]), "<f4").tobytes())
                labels.append(row[LABEL])
                identifiers.append(row["id"])
                yield pipe.take()
        for name, values in (("y", labels), ("id", identifiers)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.array(values), allow_pickle=False)
            yield pipe.take()
    yield pipe.take()
