from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dubio.serving.errors import InvalidRequest, UnknownReview
from dubio.serving.store import reviews
from dubio.serving.store.database import Database, locate, of_file
from dubio.serving.store.reviews import Filter
from dubio.serving.store.store import Store
from dubio.serving.store.tables import State
from tests.serving.store.postgres import Postgres
from tests.serving.store.reading import read_all


@pytest.fixture
def database(url: sa.URL, store: Store) -> Iterator[Database]:
    """The one that `store` writes to."""
    database = Database(url)
    yield database
    database.forget_connections()


def listed(database: Database, which: Filter | None = None, limit: int = 200, after: str | None = None) -> reviews.Page:
    with database.reading() as connection:
        return reviews.list_page(connection, which or Filter(), limit=limit, after=after, inputs=False)


def names(page: reviews.Page) -> list[str]:
    return [f"{row['request_id']}{row['row_number']}" for row in page.rows]


def test_pages_hold_every_row_once_whatever_is_written_meanwhile(
    database: Database, store: Store, fill: Callable[..., None]
) -> None:
    fill(store, "a", "b", "c", rows=3)
    before = names(listed(database))
    seen, after = [], None
    for number in range(20):
        page = listed(database, limit=2, after=after)
        seen += names(page)
        fill(store, f"new{number}")
        if (after := page.after) is None:
            break
    assert seen == before == ["c2", "c1", "c0", "b2", "b1", "b0", "a2", "a1", "a0"]


def test_a_last_page_that_is_full_says_so(database: Database, store: Store, fill: Callable[..., None]) -> None:
    fill(store, "a", rows=4)
    first = listed(database, limit=2)
    assert first.after is not None
    assert listed(database, limit=2, after=first.after).after is None
    assert listed(database, limit=4).after is None


def test_filters_choose(url: sa.URL, database: Database, store: Store, fill: Callable[..., None]) -> None:
    fill(store, "a", "b", "c")
    rows = read_all(url)
    with database.writing() as connection:
        reviews.review(connection, rows[1]["id"], State.NOT_FOR_US, None, new_label=False)
    times = [row["created_ms"] for row in rows]
    for which, expected in [
        (Filter(), "cba"),
        (Filter(model="bars", version="1"), "cba"),
        (Filter(model="other"), ""),
        (Filter(version="2"), ""),
        (Filter(request_id="b"), "b"),
        (Filter(state="open"), "ca"),
        (Filter(state="not_for_us"), "b"),
        (Filter(reason=rows[0]["reason"]), "cba"),
        (Filter(reason="uncertain"), ""),
        (Filter(kept="flagged"), "cba"),
        (Filter(kept="sampled"), ""),
        (Filter(since_ms=times[1]), "cb"),
        (Filter(until_ms=times[1]), "a"),
        (Filter(since_ms=times[1], until_ms=times[2]), "b"),
        (Filter(model="b' OR '1'='1", request_id="%"), ""),
    ]:
        assert "".join(row["request_id"] for row in listed(database, which).rows) == expected, which


def test_a_review_takes_the_place_of_the_one_before(
    url: sa.URL, database: Database, store: Store, fill: Callable[..., None]
) -> None:
    fill(store, "a")
    [row] = read_all(url)

    def say(state: State, label: str | None, *, new: bool = False) -> tuple:
        with database.writing() as connection:
            said = reviews.review(connection, row["id"], state, label, new_label=new)
        return said["state"], said["review_label"], said["reviewed_ms"] is not None

    assert say(State.LABELLED, "class-2") == ("labelled", "class-2", True)
    assert say(State.NOT_FOR_US, None) == ("not_for_us", None, True)
    assert say(State.LABELLED, "a new one", new=True) == ("labelled", "a new one", True)
    assert say(State.OPEN, None) == ("open", None, False)
    with pytest.raises(InvalidRequest, match=r"got 'clas-2'; did you mean `class-2`\?"):
        say(State.LABELLED, "clas-2")
    assert read_all(url)[0]["state"] == "open"


def test_what_is_not_there_is_unknown(database: Database, store: Store, fill: Callable[..., None]) -> None:
    fill(store, "a")
    with pytest.raises(UnknownReview), database.reading() as connection:
        reviews.get(connection, "0" * 32)
    with pytest.raises(UnknownReview), database.writing() as connection:
        reviews.review(connection, "0" * 32, State.OPEN, None, new_label=False)


@contextmanager
def explained(database: Database, connection: sa.Connection) -> Iterator[list[str]]:
    """Gives how what is read within the context is looked for."""
    statements: list[tuple[str, Any]] = []
    plan: list[str] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        statements.append((statement, parameters))

    sa.event.listen(connection, "before_cursor_execute", note)
    yield plan
    sa.event.remove(connection, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    for statement, parameters in statements:
        rows = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
        plan.extend(str(row[-1]) for row in rows)


@pytest.mark.parametrize(
    ("which", "index"),
    [
        ({"model": "m"}, "answers_by_model"),
        ({"model": "m", "version": "1"}, "answers_by_version"),
        ({"reason": "uncertain"}, "answers_by_reason"),
        ({"state": "labelled"}, "answers_by_state"),
        ({"kept": "asked"}, "answers_asked"),
        ({"request_id": "r"}, "answers_by_request"),
    ],
)
def test_no_page_reads_all_rows(tmp_path: Path, which: dict[str, str], index: str) -> None:
    database = Database(of_file(tmp_path / "store.sqlite"))
    database.upgrade()
    with database.reading() as connection, explained(database, connection) as plan:
        reviews.list_page(connection, Filter(**which), limit=50, after=None, inputs=False)
    database.forget_connections()
    [found] = [line for line in plan if "answers" in line]
    assert found.startswith("SEARCH")
    assert index in found


MANY = """
INSERT INTO answers (id, created_ms, request_id, row_number, model, version, signature, kept, share, bytes, input_form,
    input_sha256, input, label, probability, samples, flagged, arrays, state)
SELECT lpad(to_hex(number), 32, '0'), number, 'r' || number, 0, 'm' || number % 3, 1 + number / 15000, 's', 'sampled',
    1, 1000, 'hash', '', decode(repeat('00', 500), 'hex'), 'a', 0.9, 2, false, '{}', 'open'
FROM generate_series(1, 29999) AS number
"""


def test_pages_of_an_old_version_do_not_read_all_of_the_newer_one(postgres: Postgres) -> None:
    database = Database(locate(postgres.create("many")))
    database.upgrade()
    with database.writing() as connection:
        connection.execute(sa.text("INSERT INTO signatures VALUES ('s', '{}')"))
        connection.execute(sa.text(MANY))
        connection.execute(sa.text("ANALYZE answers"))
    with database.reading() as connection, explained(database, connection) as plan:
        page = reviews.list_page(connection, Filter(model="m1", version="1"), limit=50, after=None, inputs=False)
    database.forget_connections()
    assert [row["created_ms"] for row in page.rows] == list(range(14998, 14998 - 150, -3))
    assert "answers_by_version" in "\n".join(plan)
