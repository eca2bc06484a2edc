from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from dubio.models import Predictor
from dubio.serving.v1.review_schema import Review, ReviewPage

STRANGER = [[[200.0] * 8] * 8]
WAIT = {"Dubio-Store": "wait"}


@pytest.fixture(scope="module")
def client(
    serve: Callable, checkpoint: Path, table_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of a service with a store, in which are a stranger of `bars` twice, and a row of `table`."""
    from dubio.serving.settings import Settings

    given = Settings(
        models=(str(checkpoint), str(table_checkpoint)),
        torch_threads=1,
        store=tmp_path_factory.mktemp("store") / "s.sqlite",
        store_share=0,
    )
    with serve(given) as base, httpx.Client(base_url=base, timeout=30) as client:
        body = {"instances": [STRANGER, STRANGER]}
        row = {"age": 30, "income": None, "city": "Bern", "member": True}
        for request_id, name, sent in (("s-1", "bars", body), ("t-1", "table", {"instances": [row]})):
            answer = client.post(f"/v1/models/{name}/predict", json=sent, headers={**WAIT, "X-Request-Id": request_id})
            assert (answer.status_code, answer.headers["dubio-stored"]) == (200, "true")
        yield client


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["detail"]


def test_a_stranger_is_listed_with_its_answer(client: httpx.Client, predictor: Predictor) -> None:
    page = ReviewPage.model_validate_json(client.get("/v1/reviews", params={"request_id": "s-1"}).content)
    assert page.after is None
    assert [review.row for review in page.reviews] == [1, 0]
    prediction = predictor.predict(np.float32([STRANGER]))
    for review in page.reviews:
        assert review.ood.flagged
        assert review.ood.p_value == pytest.approx(prediction.p_value[0])
        assert review.ood.reason == prediction.reasons[0]
        assert review.deterministic.label == predictor.classes[prediction.label[0]]
        assert np.float32(review.mc.mean) == pytest.approx(prediction.mc_mean[0], abs=1e-5)
        assert (review.input.kind, review.input.form) == ("image", "array")
        assert review.input.instance is None
        assert review.input.picture is None


def test_an_input_is_shown_as_it_was_sent_and_predicts_the_same(client: httpx.Client) -> None:
    listed = client.get("/v1/reviews", params={"inputs": "true", "model": "bars"}).json()["reviews"]
    alone = client.get(f"/v1/reviews/{listed[0]['id']}").json()
    Review.model_validate(alone)
    assert listed[0] == alone
    assert alone["input"]["instance"] == STRANGER
    again = client.post("/v1/models/bars/predict", json={"instances": [alone["input"]["instance"]]}).json()
    assert again["predictions"][0]["ood"]["p_value"] == alone["ood"]["p_value"]
    picture = Image.open(io.BytesIO(base64.b64decode(alone["input"]["picture"].partition(",")[2])))
    assert picture.size == (8, 8)
    assert np.asarray(picture).min() == 255  # far above the brightest that was trained on
    [row] = client.get("/v1/reviews", params={"inputs": "true", "model": "table"}).json()["reviews"]
    assert row["input"]["instance"] == {"age": 30, "income": None, "city": "Bern", "member": True}
    assert row["input"]["picture"] is None


def test_a_label_is_kept_and_exported(client: httpx.Client) -> None:
    # By name: what the test before sent may have come here meanwhile.
    [first, second] = client.get("/v1/reviews", params={"request_id": "s-1"}).json()["reviews"]
    said = client.patch(f"/v1/reviews/{first['id']}", json={"label": "class-2"})
    assert said.status_code == 200
    assert Review.model_validate_json(said.content).label == "class-2"
    assert client.patch(f"/v1/reviews/{second['id']}", json={"state": "not_for_us"}).json()["state"] == "not_for_us"
    exported = client.get("/v1/reviews/export", params={"format": "npz", "model": "bars"})
    assert exported.headers["dubio-rows"] == "1"
    assert "reviews.npz" in exported.headers["content-disposition"]
    held = np.load(io.BytesIO(exported.content), allow_pickle=False)
    assert (held["x"].tolist(), held["y"].tolist()) == ([STRANGER], ["class-2"])
    for review in (first, second):
        assert client.patch(f"/v1/reviews/{review['id']}", json={"state": "open"}).json()["label"] is None
    status, detail = problem(client.get("/v1/reviews/export?format=csv"))
    assert status == 404
    assert "PATCH /v1/reviews/ID" in detail


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("modle=x", "did you mean `model`?"),
        ("model=a&model=b", "`model` once"),
        ("model=", "1 to 256 characters"),
        ("model=%00", "can be printed"),
        ("model=" + "x" * 300, "1 to 256 characters"),
        ("state=done", "one of open, labelled, not_for_us"),
        ("reason=odd", "one of unfamiliar"),
        ("limit=0", "an integer in [1, 200]"),
        ("limit=201", "an integer in [1, 200]"),
        ("limit=1e2", "an integer in [1, 200]"),
        ("limit=%D9%A1", "an integer in [1, 200]"),
        ("after=zz", "what the page before gave"),
        ("after=" + "0" * 33, "what the page before gave"),
        ("after='%20OR%201=1--", "what the page before gave"),
        ("since=yesterday", "a time with its zone"),
        ("since=2026-01-01T00:00:00", "a time with its zone"),
        ("until=0001-01-01T00:00:00Z", "a time with its zone"),
        ("until=9999-12-31T23:59:59Z&since=99999-12-31T23:59:59Z", "a time with its zone"),
        ("inputs=1", "one of true, preview, false"),
        ("format=npz", "unknown parameter"),
    ],
)
def test_a_query_that_is_wrong_is_refused(client: httpx.Client, query: str, complaint: str) -> None:
    status, detail = problem(client.get(f"/v1/reviews?{query}"))
    assert status == 422
    assert complaint in detail


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({}, "neither"),
        ({"state": "labelled"}, "without one"),
        ({"state": "open", "label": "class-1"}, "with one"),
        ({"label": "klass-1"}, "did you mean `class-1`?"),
        ({"label": ""}, "`label`"),
        ({"label": "a\0b"}, "`label`"),
        ({"label": 3}, "`label`"),
        ({"state": "done"}, "`state`"),
        ({"lable": "class-1"}, "did you mean `label`?"),
        ([], "an object"),
    ],
)
def test_a_review_that_is_wrong_changes_nothing(client: httpx.Client, body: object, complaint: str) -> None:
    review = client.get("/v1/reviews", params={"model": "bars", "limit": 1}).json()["reviews"][0]
    status, detail = problem(client.patch(f"/v1/reviews/{review['id']}", json=body))
    assert status == 422
    assert complaint in detail
    assert client.get(f"/v1/reviews/{review['id']}").json()["state"] == review["state"]


def test_what_is_not_stored_is_not_found(client: httpx.Client) -> None:
    assert problem(client.get(f"/v1/reviews/{'0' * 32}"))[0] == 404
    assert problem(client.patch(f"/v1/reviews/{'0' * 32}", json={"label": "class-1"}))[0] == 404
    assert problem(client.get("/v1/reviews/1"))[0] == 422
    assert client.get("/v1/reviews?model=none").json() == {"reviews": [], "after": None}


def test_pages_go_on_where_the_last_one_ended(client: httpx.Client) -> None:
    def listed(**query: Any) -> dict[str, Any]:
        return client.get("/v1/reviews", params=query).json()

    for _ in range(20):
        every, found, after = listed()["reviews"], [], {}
        while True:
            page = listed(limit=2, **after)
            found += page["reviews"]
            if page["after"] is None:
                break
            after = {"after": page["after"]}
        if listed()["reviews"] == every:  # or else a row that an earlier test did not wait for came in between
            break
    assert len(every) >= 3
    assert found == every


def test_all_methods_of_a_path_are_named(client: httpx.Client) -> None:
    refused = client.delete(f"/v1/reviews/{'0' * 32}")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, PATCH, HEAD")
    assert client.delete("/v1/reviews/export").headers["allow"] == "GET, HEAD"


def test_without_a_store_that_is_said(serve: Callable, settings: Callable, checkpoint: Path) -> None:
    with serve(settings(models=(str(checkpoint),))) as base, httpx.Client(base_url=base) as client:
        status, detail = problem(client.get("/v1/reviews"))
        assert (status, "DUBIO_DATABASE_URL" in detail) == (409, True)
        assert client.get("/v1/reviews/export?format=npz").status_code == 409
        assert client.patch("/v1/reviews/1", json={}).status_code == 409
        assert client.post("/v1/feedback", json={}).status_code == 409
        assert client.get("/v1/models/model/quality").status_code in (404, 409)
        assert client.post("/v1/predict", json={"instances": [STRANGER]}).status_code == 200
        asked = client.post("/v1/predict", json={"instances": [STRANGER]}, headers=WAIT)
        assert (asked.status_code, asked.headers["dubio-stored"]) == (200, "false")
