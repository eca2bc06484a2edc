"""The page in a real browser: the queue of stored answers, looked through and labelled."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dubio.serving.settings import Settings
from tests.serving.web.browser import Page, needs_chromium
from tests.serving.web.conftest import draw_digits, keep

pytestmark = needs_chromium
INFER, REVIEW = "infer-secret-0123456789", "review-secret-0123456789"


def strangers(count: int, seed: int) -> list[Any]:
    """Negatives of digits, light where those are dark."""
    return (16 - draw_digits(count + seed, 2)[0][seed:, 0]).tolist()


def reviews(url: str, **query: str) -> list[dict[str, Any]]:
    return list(httpx.get(f"{url}/v1/reviews", params=query).raise_for_status().json()["reviews"])


def empty(url: str) -> None:
    """What other tests left in the queue is not for us."""
    while open_ones := reviews(url, state="open", limit="200"):
        for review in open_ones:
            httpx.patch(f"{url}/v1/reviews/{review['id']}", json={"state": "not_for_us"}).raise_for_status()


def visit(page: Page, url: str, query: str) -> None:
    page.visit(f"{url}/?view=review&{query}")
    page.wait("document.querySelector('#review-status').textContent")


def press(page: Page, key: str, said: str) -> None:
    page.press(key)
    page.wait(f"document.querySelector('#review-status').textContent.startsWith({json.dumps(said)})")


def test_flagged_digits_are_labelled_by_keyboard_alone(page: Page, store_url: str) -> None:
    empty(store_url)
    answers = keep(store_url, "digits", strangers(6, 0), "keyboard")
    assert all(answer["ood"]["flagged"] for answer in answers)
    visit(page, store_url, "model=digits")
    assert page.run("document.activeElement.id") == "queue"
    newest = reviews(store_url, request_id="keyboard")
    assert [review["row"] for review in newest] == [5, 4, 3, 2, 1, 0]
    assert page.run("document.querySelector('#queue').children.length") == 6
    answer = answers[5]
    shown = page.text("#item-answer")
    assert f"{answer['mc']['label']} (" in shown
    assert "keyboard, row 5" in shown
    p_value = float(f"{answer['ood']['p_value']:.2g}")
    assert f"p-value {p_value:g}," in page.text("#item-p-value")
    press(page, "7", "Noted: labelled 7. 2 of 6")
    press(page, "ArrowRight", f"{(int(answers[4]['mc']['label']) + 1) % 10} is chosen")
    press(page, "Enter", f"Noted: labelled {(int(answers[4]['mc']['label']) + 1) % 10}. 3 of 6")
    press(page, "-", "Noted: not for us. 4 of 6")
    press(page, "3", "Noted: labelled 3. 5 of 6")
    press(page, "Backspace", "Taken back. 4 of 6")
    press(page, "ArrowUp", "3 of 6")
    said = {review["row"]: (review["state"], review["label"]) for review in reviews(store_url, request_id="keyboard")}
    assert said == {
        5: ("labelled", "7"),
        4: ("labelled", str((int(answers[4]["mc"]["label"]) + 1) % 10)),
        3: ("not_for_us", None),
        2: ("open", None),
        1: ("open", None),
        0: ("open", None),
    }
    page.press("ArrowDown")
    # Keys that come faster than answers go to one input each.
    for key in "0123":
        page.press(key)
    page.wait("document.querySelector('#review-status').textContent.includes('That was the last one')")
    labels = [review["label"] for review in reviews(store_url, request_id="keyboard")]
    assert labels[3:] == ["0", "1", "3"]
    active = page.run("document.querySelector('#queue').getAttribute('aria-activedescendant')")
    assert page.run(f"document.getElementById('{active}').getAttribute('aria-selected')") == "true"


def test_inputs_are_drawn_in_their_natural_form(page: Page, store_url: str) -> None:
    row = {"age": 41, "income": None, "city": "Bern", "member": True}
    keep(store_url, "table", [row], "row")
    keep(store_url, "text", ["where is my card?"], "text")
    [answer] = keep(store_url, "digits", strangers(1, 30), "picture")
    visit(page, store_url, "model=table&kept=")
    cells = page.run("[...document.querySelectorAll('#item-input td')].map((each) => each.textContent)")
    assert cells == ["41", "missing", "Bern", "true"]
    assert page.text("#queue").startswith("41 · missing · Bern")
    visit(page, store_url, "model=text&kept=")
    assert page.text("#item-input blockquote") == "where is my card?"
    # A letter leads to a class, Enter takes it; classes of several letters have their place for a key.
    classes = httpx.get(f"{store_url}/v1/models/text").json()["classes"]
    assert page.run("[...document.querySelectorAll('#labels kbd')].map((each) => each.textContent)") == list("1234")
    press(page, "2", "Noted: labelled class-1.")
    assert reviews(store_url, request_id="text")[0]["label"] == classes[1]
    reason = answer["ood"]["reason"]
    visit(page, store_url, f"model=digits&reason={reason}")
    lines = page.run("[...document.querySelectorAll('#queue .small')].map((each) => each.textContent)")
    assert {line.partition(" · ")[0] for line in lines} == {reason.replace("_", " ")}
    kinds = "[...document.querySelectorAll('#item-input img, #queue img')].map((each) => [each.naturalWidth, each.alt])"
    page.wait("document.querySelector('#item-input img').naturalWidth")
    assert page.run(kinds)[0] == [8, ""]
    assert [8, "The input"] in page.run(kinds)


def test_a_class_that_the_model_does_not_know(page: Page, store_url: str) -> None:
    keep(store_url, "digits", strangers(1, 40), "letter")
    visit(page, store_url, "model=digits")
    page.click("#other")
    page.write("letter-b")
    page.press("Enter")
    page.wait("document.querySelector('#review-status').textContent.startsWith('Noted: labelled letter-b.')")
    assert reviews(store_url, request_id="letter")[0]["label"] == "letter-b"
    visit(page, store_url, "model=digits&state=labelled")
    assert "labelled letter-b" in page.text("#queue")
    assert page.run("document.querySelector('#review-state').value") == "labelled"


def test_pages_follow_one_another(page: Page, serve: Callable, digits_checkpoint: Path, tmp_path: Path) -> None:
    given = Settings(models=(str(digits_checkpoint),), torch_threads=1, store=tmp_path / "s.sqlite", store_input="hash")
    with serve(given) as url:
        keep(url, "digits", strangers(55, 0), "many")
        visit(page, url, "")
        assert page.run("document.querySelectorAll('#queue li').length") == 50
        sha256 = reviews(url, limit="1")[0]["input"]["sha256"]
        assert sha256 in page.text("#item-input")  # where nothing else is stored
        press(page, "End", "50 of 50 and more")
        press(page, "ArrowDown", "51 of 55")
        assert not page.run("document.querySelector('#review-more').checkVisibility()")
        ids = page.run("[...document.querySelectorAll('#queue li')].map((each) => each.id.slice(7))")
        assert ids == [review["id"] for review in reviews(url, limit="200")]


def test_nothing_is_said_about_what_cannot_be_seen(
    page: Page, serve: Callable, digits_checkpoint: Path, tmp_path: Path
) -> None:
    with serve(Settings(models=(str(digits_checkpoint),), torch_threads=1, store=tmp_path / "s.sqlite")) as url:
        keep(url, "digits", strangers(4, 0), "gone")
        visit(page, url, "")
        with closing(sqlite3.connect(tmp_path / "s.sqlite")) as database, database:  # as retention does
            database.execute("DELETE FROM answers WHERE row_number = 1")
        press(page, "ArrowDown", "2 of 4")
        page.press("ArrowDown")
        page.wait("!document.querySelector('#review-problem').hidden")
        assert page.text("#review-problem").startswith("Unknown review: ")
        assert not page.run("document.querySelector('#item').checkVisibility()")
        page.press("5")
        page.wait("document.querySelector('#review-problem').textContent.includes('nothing was said')")
        press(page, "ArrowDown", "4 of 4")
        assert page.run("document.querySelector('#item').checkVisibility()")
        assert {review["state"] for review in reviews(url)} == {"open"}


def test_without_a_store_it_says_how_to_start_one(page: Page, page_url: str) -> None:
    page.visit(f"{page_url}/?view=review")
    page.wait("!document.querySelector('#review-problem').hidden")
    assert "start the service with --store" in page.text("#review-problem")


def test_a_key_for_reviews_is_asked_for_where_the_first_is_not_enough(
    page: Page, serve: Callable, digits_checkpoint: Path, tmp_path: Path
) -> None:
    keys = f"infer:{INFER} review:{REVIEW}"
    given = Settings(models=(str(digits_checkpoint),), torch_threads=1, store=tmp_path / "s.sqlite", api_keys=keys)  # type: ignore[arg-type]
    with serve(given) as url:
        for scope, secret in (("infer", INFER), ("review", REVIEW)):
            if scope == "infer":
                page.visit(f"{url}/?view=review")
            page.wait(
                "!document.querySelector('#access').hidden"
                f"&& document.querySelector('#key-scope').textContent === '{scope}'"
            )
            page.write(secret)
            page.press("Enter")
        page.wait("document.querySelector('#review-status').textContent.startsWith('No stored answer')")
        page.click("[data-view=try]")
        page.settle()  # with the key that predicts
    page.run("sessionStorage.clear()")
    page.complaints.clear()


def test_a_preview_has_small_pictures_and_no_arrays(store_url: str) -> None:
    keep(store_url, "digits", strangers(1, 50), "preview")
    [whole], [preview] = (reviews(store_url, request_id="preview", inputs=how) for how in ("true", "preview"))
    assert preview["input"]["instance"] is None
    assert np.shape(whole["input"]["instance"]) == (1, 8, 8)
    assert preview["input"]["picture"] == whole["input"]["picture"]  # which is small already


def test_the_export_is_saved_by_the_browser(page: Page, store_url: str, tmp_path: Path) -> None:
    keep(store_url, "digits", strangers(1, 60), "exported")
    visit(page, store_url, "model=digits")
    press(page, "4", "Noted: labelled 4.")
    page.save_files_in(tmp_path)
    page.click("[data-export=npz]")
    page.wait("document.querySelector('#review-status').textContent.includes('reviews.npz')")
    rows = httpx.get(f"{store_url}/v1/reviews/export", params={"format": "npz", "model": "digits", "kept": "flagged"})
    told = int(page.text("#review-status").split()[0])
    held = np.load(io.BytesIO(rows.content))
    assert told == len(held["y"]) == int(rows.headers["dubio-rows"])
    page.click("[data-export=csv]")  # images are no table
    page.wait("!document.querySelector('#review-problem').hidden")
    assert page.text("#review-problem").startswith("Invalid request: ")


@pytest.mark.parametrize(
    ("classes", "keys"),
    [
        (["a", "b", "ä"], {"a": "a", "b": "b", "ä": "ä"}),
        ([str(i) for i in range(12)], {str(i): str(i) for i in range(10)}),
        (["Cat", "Dog"], {"1": "Cat", "2": "Dog"}),
        ([f"class-{i}" for i in range(12)], {str((i + 1) % 10): f"class-{i}" for i in range(10)}),
        (["0", "1", "other"], {"0": "0", "1": "1"}),
        (["10", "11"], {}),
    ],
)
def test_a_key_means_one_class(page: Page, page_url: str, classes: list[str], keys: dict[str, str]) -> None:
    if not page.run("location.href").startswith(page_url):
        page.visit(f"{page_url}/")
    script = "import('./static/class_choice.js').then((it) => {}"
    assert page.run(f"{script[:-3]}Object.fromEntries(it.keysOf({json.dumps(classes)})))") == keys
