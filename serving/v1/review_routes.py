"""The routes of `/v1/reviews`: what the store keeps, what a reviewer says about it, and a file for further training."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dubio.serving.errors import InvalidRequest, StoreOff
from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ScopedRouter
from dubio.serving.http.request import read_body
from dubio.serving.settings import Settings
from dubio.serving.v1 import review_schema as schema
from dubio.serving.wire.envelope import read
from dubio.serving.wire.explanation import to_data_url
from dubio.serving.wire.schema import Problem, Wire, describe_content, describe_errors

if TYPE_CHECKING:  # which brings the database's libraries along, and most services have no store
    from dubio.serving.store.reviews import Filter, Row
    from dubio.serving.store.store import Store

_PROBLEM = {"content": describe_content(Problem, "application/problem+json")}
_FILE = {"schema": {"type": "string", "format": "binary"}}
_LIST = {"parameters": schema.describe_query({**schema.FILTERS, **schema.PAGING})}


def _docs(kind: type[Wire], extra: dict[str, Any], *statuses: int) -> dict[str, Any]:
    return {
        "response_class": Response,
        "responses": {
            200: {"description": "Described", "model": kind},
            **describe_errors(_PROBLEM, 409, 422, 503, *statuses),
        },
        "openapi_extra": extra,
    }


_EXPORT_DOCS: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "The file, sent while it is made",
            "content": {"application/octet-stream": _FILE, "text/csv": _FILE, "application/jsonl": _FILE},
            "headers": {
                "Dubio-Rows": {"description": "How many there are in it.", "schema": {"type": "integer"}},
                "Dubio-Rows-Without-Input": {
                    "description": "How many more match, of which the input is not stored in full.",
                    "schema": {"type": "integer"},
                },
            },
        },
        **describe_errors(_PROBLEM, 404, 409, 422, 503),
    },
    "openapi_extra": {"parameters": schema.describe_query({**schema.FILTERS, **schema.EXPORT}, ["format"])},
}
_PATCH_DOCS = _docs(
    schema.Review,
    {"requestBody": {"required": True, "content": describe_content(schema.ReviewChange)}},
    *(400, 404, 408, 413, 415),
)


def require(store: Store | None) -> Store:
    """The store.

    Raises:
        StoreOff: There is none.
    """
    if store is None:
        raise StoreOff("The store is off; start the service with --store runs/store.sqlite, or DUBIO_DATABASE_URL.")
    return store


def build(store: Store | None, settings: Settings) -> ScopedRouter:
    """The `/v1/reviews` routes around the store, if there is one."""
    router = ScopedRouter(Scope.REVIEW, prefix="/v1/reviews", tags=["reviews"])

    @router.get("", summary="Stored answers, the newest first", **_docs(schema.ReviewPage, _LIST))
    async def list_reviews(request: Request) -> Response:
        known = require(store)
        from dubio.serving.store import reviews

        values = schema.read_query(request.query_params.multi_items(), {**schema.FILTERS, **schema.PAGING})
        which, inputs = _filter(values), values.get("inputs", "false")
        page = await known.read(
            lambda connection: reviews.list_page(
                connection, which, limit=schema.usual_limit(values), after=values.get("after"), inputs=inputs != "false"
            )
        )
        document = await asyncio.to_thread(
            lambda: orjson.dumps(
                {"reviews": [_describe(row, preview=inputs == "preview") for row in page.rows], "after": page.after}
            )
        )
        return Response(document, media_type="application/json")

    @router.get("/export", summary="Labelled rows as a file for training", **_EXPORT_DOCS)
    async def export_reviews(request: Request) -> Response:
        known = require(store)
        from dubio.serving.store import export

        values = schema.read_query(request.query_params.multi_items(), {**schema.FILTERS, **schema.EXPORT})
        kind = values.get("format")
        if kind is None:
            raise InvalidRequest(f"Expected `format` in the query, one of {', '.join(schema.FORMATS)}; add it.")
        which, stack = _filter(values), ExitStack()
        # The connection outlives this call: the rows are read from it while they are sent.
        exported, parts = await known.stream(
            stack,
            lambda connection: export.plan(connection, which, kind),
            lambda connection, planned: export.write(connection, which, kind, planned),
        )

        def send() -> Iterator[bytes]:
            with stack:
                yield from parts

        headers = {
            "Content-Disposition": f'attachment; filename="reviews.{kind}"',
            "Dubio-Rows": str(exported.rows),
            "Dubio-Rows-Without-Input": str(exported.without_input),
        }
        return StreamingResponse(send(), headers=headers, media_type=export.MEDIA_TYPES[kind])

    @router.get("/{id}", summary="One stored answer, with its input", **_docs(schema.Review, {}, 404))
    async def show_review(request: Request, id: str) -> Response:
        known = require(store)
        from dubio.serving.store import reviews

        schema.read_query(request.query_params.multi_items(), {})
        identifier = _identifier(id)
        return _json(_describe(await known.read(lambda connection: reviews.get(connection, identifier))))

    @router.patch("/{id}", summary="Label a stored answer, or say that it is not for us", **_PATCH_DOCS)
    async def change_review(request: Request, id: str) -> Response:
        known = require(store)
        from dubio.serving.store import reviews
        from dubio.serving.store.tables import State

        body = await read_body(request, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
        change = read(body, schema.ReviewChange)
        state, identifier = State(change.decide()), _identifier(id)
        row = await known.change(
            lambda connection: reviews.review(connection, identifier, state, change.label, new_label=change.new_label)
        )
        return _json(_describe(row))

    return router


def _identifier(text: str) -> str:
    [value] = schema.read_query([("id", text)], {"id": schema.IDENTIFIER}).values()
    return str(value)


def _filter(values: dict[str, Any]) -> Filter:
    from dubio.serving.store.reviews import Filter

    since, until = values.get("since"), values.get("until")
    names = ("model", "version", "reason", "state", "kept", "request_id")
    return Filter(**{name: values.get(name) for name in names}, since_ms=since, until_ms=until)


def _describe(row: Row, *, preview: bool = False) -> dict[str, Any]:
    """A `schema.Review` as plain data; a preview has no arrays, and small pictures."""
    from dubio.serving.store.inputs import Form, read_instance, read_picture, shrink

    signature, arrays, content = orjson.loads(row["content"]), orjson.loads(row["arrays"]), row.get("input")
    pixels = read_picture(row["input_form"], content, signature["low"], signature["high"])
    if preview and pixels is not None:
        pixels = shrink(pixels, 0, 255)
    has_instance = not preview or row["input_form"] == Form.JSON
    has_mc = row["mc_label"] is not None
    return {
        "id": row["id"],
        "time": _moment(row["created_ms"]),
        "request_id": row["request_id"],
        "row": row["row_number"],
        "model": {"name": row["model"], "version": row["version"]},
        "kept": row["kept"],
        "input": {
            "kind": signature["kind"],
            "form": row["input_form"],
            "sha256": row["input_sha256"],
            "instance": read_instance(row["input_form"], content) if has_instance else None,
            "picture": None if pixels is None or signature["kind"] != "image" else to_data_url(pixels),
        },
        "deterministic": {
            "label": row["label"],
            "probability": row["probability"],
            "probabilities": arrays["probabilities"],
        },
        "mc": {"samples": row["samples"], "label": row["mc_label"], "mean": arrays["mean"], "std": arrays["std"]}
        if has_mc
        else None,
        "uncertainty": {name: row[name] for name in _MEASURES} if has_mc else None,
        "ood": {name: row[name] for name in ("flagged", "p_value", "level", "reason")},
        "label_set": arrays["label_set"],
        "accepted": row["accepted"],
        "state": row["state"],
        "label": row["review_label"],
        "reviewed": None if row["reviewed_ms"] is None else _moment(row["reviewed_ms"]),
        "true_label": row["true_label"],
    }


_MEASURES = ("predictive_entropy", "expected_entropy", "mutual_information")


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
