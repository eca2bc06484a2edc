from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa

from dubio import models
from dubio.models import Predictor
from dubio.serving.errors import InvalidRequest, UnknownReview
from dubio.serving.repository.registry import ServedModel
from dubio.serving.store import export, reviews
from dubio.serving.store.database import Database
from dubio.serving.store.reviews import Filter
from dubio.serving.store.store import Store
from dubio.serving.store.tables import State, answers
from dubio.training import Arrays, Table, Text
from tests.serving.store.reading import read_all

CLASSES = [f"class-{i}" for i in range(4)]


def keep(store: Store, name: str, predictor: Predictor, x: np.ndarray, instances: list | None = None) -> None:
    instance = None if instances is None else instances.__getitem__
    model = ServedModel(name, "1", predictor)
    done = store.record(model, x, predictor.predict(x), request_id=name, instance=instance, everything=True)
    assert done is not None
    assert done.result(20)


def label(url: sa.URL, **more: str) -> list[str]:
    """Give rows the four classes in turn; gives the labels by the order of the rows."""
    database, said = Database(url), []
    for number, row in enumerate(read_all(url)):
        said.append(more.get(row["request_id"], CLASSES[number % 4]))
        with database.writing() as connection:
            reviews.review(connection, row["id"], State.LABELLED, said[-1], new_label=True)
    database.forget_connections()
    return said


def exported(url: sa.URL, kind: export.Format, which: Filter | None = None) -> tuple[bytes, export.Exported]:
    database, which = Database(url), which or Filter()
    try:
        with database.reading() as connection:
            plan = export.plan(connection, which, kind)
            return b"".join(export.write(connection, which, kind, plan)), plan
    finally:
        database.forget_connections()


def test_arrays_are_as_they_were_sent_and_training_reads_them(
    url: sa.URL, store: Store, predictor: Predictor, strangers: np.ndarray, tmp_path: Path
) -> None:
    keep(store, "bars", predictor, strangers)
    labels = label(url)
    content, plan = exported(url, "npz")
    assert (plan.rows, plan.without_input) == (40, 0)
    held = np.load(io.BytesIO(content), allow_pickle=False)
    np.testing.assert_array_equal(held["x"], strangers)
    assert held["x"].dtype == np.float32
    assert held["y"].tolist() == labels
    assert held["id"].tolist() == [row["id"] for row in read_all(url)]
    (tmp_path / "reviews.npz").write_bytes(content)
    read = Arrays(
        str(tmp_path / "reviews.npz"), train=0.2, validation=0.2, select=0.2, calibration=0.2, test=0.2
    ).load()
    assert list(read.classes) == CLASSES


def test_rows_of_a_table_are_a_csv_file_that_training_reads(
    url: sa.URL, store: Store, table_checkpoint: Path, tmp_path: Path
) -> None:
    predictor = models.load(table_checkpoint)
    draw = np.random.default_rng(0)
    instances = [
        {
            "age": int(draw.integers(18, 90)),
            "income": None if row % 7 == 0 else float(np.float32(draw.uniform(0, 9000))),
            "city": ["Bern", "Köln", None][row % 3],
            "member": bool(row % 2),
        }
        for row in range(40)
    ]
    x = predictor.input.reader.read(instances)
    keep(store, "table", predictor, x, instances)
    labels = label(url)
    path = tmp_path / "reviews.csv"
    path.write_bytes(exported(url, "csv")[0])
    frame = pl.read_csv(path)
    assert frame.columns == ["age", "income", "city", "member", "label"]
    assert frame["label"].to_list() == labels
    assert frame.drop("label").to_dicts() == instances
    shares = {"train": 0.2, "validation": 0.2, "select": 0.2, "calibration": 0.2, "test": 0.2}
    read = Table(str(path), target="label", **shares).load()
    assert list(read.classes) == CLASSES
    assert [column.name for column in read.input.columns] == ["age", "income", "city", "member"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_texts_are_read_by_training(
    url: sa.URL, store: Store, text_checkpoint: Path, tmp_path: Path, kind: export.Format
) -> None:
    predictor = models.load(text_checkpoint)
    texts = [f'my card is lost, number "{row % 3}"\nüber' for row in range(40)]
    keep(store, "text", predictor, predictor.input.reader.read(texts), texts)
    labels = label(url)
    path = tmp_path / f"reviews.{kind}"
    path.write_bytes(exported(url, kind)[0])
    shares = {"train": 0.2, "validation": 0.2, "select": 0.2, "calibration": 0.2, "test": 0.2}
    module = Text(str(path), **shares)
    assert list(module.load().classes) == CLASSES
    if kind == "jsonl":
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert [line["text"] for line in lines] == texts
        assert [line["label"] for line in lines] == labels
        assert [line["row"] for line in lines] == list(range(40))


def test_a_file_is_sent_in_few_parts(
    url: sa.URL, store: Store, predictor: Predictor, strangers: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, "bars", predictor, strangers)
    label(url)
    whole, _ = exported(url, "jsonl")
    monkeypatch.setattr(export, "_BLOCK_BYTES", 2000)
    database = Database(url)
    with database.reading() as connection:
        plan = export.plan(connection, Filter(), "jsonl")
        parts = list(export.write(connection, Filter(), "jsonl", plan))
    database.forget_connections()
    assert b"".join(parts) == whole
    longest = max(map(len, whole.splitlines(keepends=True)))
    assert len(parts) > 2
    assert all(2000 <= len(part) < 2000 + longest for part in parts[:-1])


def test_what_nobody_labelled_or_is_not_for_us_is_left_out(
    url: sa.URL, store: Store, fill: Callable[..., None], predictor: Predictor
) -> None:
    fill(store, "a", "b", "c", "d")
    rows = read_all(url)
    database = Database(url)
    with database.writing() as connection:
        reviews.review(connection, rows[0]["id"], State.LABELLED, "class-0", new_label=False)
        reviews.review(connection, rows[1]["id"], State.NOT_FOR_US, None, new_label=False)
        truth = sa.update(answers).values(true_label="class-3")
        connection.execute(truth.where(answers.c.id.in_([rows[0]["id"], rows[1]["id"], rows[2]["id"]])))
    database.forget_connections()
    lines = [json.loads(line) for line in exported(url, "jsonl")[0].splitlines()]
    # A reviewer saw the input, so what a reviewer says goes before feedback.
    assert [(line["request_id"], line["label"]) for line in lines] == [("a", "class-0"), ("c", "class-3")]
    lines = [json.loads(line) for line in exported(url, "jsonl", Filter(state="labelled"))[0].splitlines()]
    assert [line["request_id"] for line in lines] == ["a"]


def test_without_inputs_there_is_nothing_to_export(
    url: sa.URL, open_store: Callable[..., Store], fill: Callable[..., None]
) -> None:
    store = open_store(url, stored_input="hash")
    fill(store, "a", "b")
    with pytest.raises(UnknownReview, match="no row with a label to export\\. Label some"):
        exported(url, "npz")
    label(url)
    with pytest.raises(UnknownReview, match="the inputs of the 2 that match are not stored in full"):
        exported(url, "npz")
    fill(open_store(url), "c")
    label(url)
    _, plan = exported(url, "npz")
    assert (plan.rows, plan.without_input) == (1, 2)


def test_rows_of_different_models_are_no_file(
    url: sa.URL, store: Store, fill: Callable[..., None], numbers_checkpoint: Path
) -> None:
    fill(store, "a", "b")
    keep(store, "row", models.load(numbers_checkpoint), np.full((2, 5), 9, np.float32))
    label(url)
    with pytest.raises(InvalidRequest, match="choose a `model`"):
        exported(url, "npz")
    held = np.load(io.BytesIO(exported(url, "npz", Filter(model="row"))[0]))
    assert held["x"].tolist() == [[9.0] * 5] * 2
    with pytest.raises(InvalidRequest, match="to be npz or jsonl for a model of numbers input, but got csv"):
        exported(url, "csv", Filter(model="row"))
