"""The page in a real browser: inputs in their natural form."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.serving.web.browser import Page, needs_chromium

pytestmark = needs_chromium
SIDE = 8


def visit(page: Page, url: str, model: str) -> None:
    page.visit(f"{url}/?model={model}")
    page.settle()


def values(page: Page) -> Any:
    return json.loads(page.run("document.querySelector('#values').value"))


def stripes(colour: bool = False) -> np.ndarray:
    """A picture of twice the model's size, whose halves are bright and dark, or red and blue."""
    pixels = np.zeros((2 * SIDE, 2 * SIDE, 3), np.uint8)
    pixels[:, :SIDE] = (255, 0, 0) if colour else 255
    pixels[:, SIDE:] = (0, 0, 255) if colour else 0
    return pixels


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def hand_over(event: str, content: bytes, name: str) -> str:
    """A script that drops or pastes a file, as a visitor would."""
    kind = "new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})"
    if event == "paste":
        kind = "new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true})"
    encoded = base64.b64encode(content).decode()
    return (
        f"(() => {{ const bytes = Uint8Array.from(atob('{encoded}'), (each) => each.charCodeAt(0));"
        f"const data = new DataTransfer(); data.items.add(new File([bytes], '{name}', {{type: 'image/png'}}));"
        f"document.querySelector('#grid').dispatchEvent({kind}); }})()"
    )


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_picture_is_scaled_to_what_the_model_takes(page: Page, page_url: str, tmp_path: Path, way: str) -> None:
    visit(page, page_url, "bars")
    if way == "choose":
        (tmp_path / "stripes.png").write_bytes(png(stripes()))
        page.choose_file("#file", tmp_path / "stripes.png")
    else:
        page.run(hand_over(way, png(stripes()), "stripes.png"))
    wanted = [[16] * 4 + [0] * 4] * SIDE
    compact = json.dumps(wanted, separators=(",", ":"))
    page.wait(f"JSON.stringify(JSON.parse(document.querySelector('#values').value)) === '{compact}'")
    page.settle()
    assert page.run("document.querySelector('#verdicts').dataset.level") in ("bad", "doubt")


def test_a_picture_in_colour_goes_to_a_model_of_colours(page: Page, page_url: str) -> None:
    visit(page, page_url, "pixels")
    page.run(hand_over("drop", png(stripes(colour=True)), "stripes.png"))
    page.wait("JSON.parse(document.querySelector('#values').value)[1].flat().every((each) => each === 0)")
    red, green, blue = (np.array(each) for each in values(page))
    assert (red[:, :4] == 255).all()
    assert (red[:, 4:] == 0).all()
    assert (green == 0).all()
    assert (blue[:, 4:] == 255).all()


def test_what_is_no_picture_is_refused_in_words(page: Page, page_url: str) -> None:
    visit(page, page_url, "bars")
    before = values(page)
    page.run(hand_over("drop", b"no picture", "notes.txt"))
    page.wait("!document.querySelector('#input-problem').hidden")
    assert page.text("#input-problem").startswith("notes.txt is no picture")
    assert values(page) == before


def test_a_drawing_is_predicted_when_the_mouse_lets_go(page: Page, page_url: str) -> None:
    visit(page, page_url, "bars")
    page.click("#clear")
    page.wait("JSON.parse(document.querySelector('#values').value).flat().every((each) => each === 0)")
    page.settle()
    counted = "performance.getEntriesByType('resource').filter((each) => each.name.endsWith('/predict')).length"
    asked = page.run(counted)
    page.mouse(page.at("#grid", 0.1, 0.19), page.at("#grid", 0.5, 0.19), page.at("#grid", 0.9, 0.19))
    page.wait(f"{counted} === {asked} + 1")
    drawn = np.array(values(page))
    assert (drawn[1, 1:7] == 16).all()
    assert (drawn[4:] == 0).all()


@pytest.mark.parametrize(("model", "ways"), [("bars", ["noise", "rotation", "brightness"]), ("row", ["noise"])])
def test_the_slider_corrupts_and_gives_back(page: Page, page_url: str, model: str, ways: list[str]) -> None:
    visit(page, page_url, model)
    assert page.run("[...document.querySelector('#corruption-kind').options].map((each) => each.value)") == ways
    clean = values(page)
    for way in ways:
        for strength in (60, 0):
            page.put("#corruption-kind", way)
            page.put("#strength", str(strength))
            page.wait(f"document.querySelector('#corruption-effect').textContent.startsWith('{strength}%')")
            page.settle()
            assert (values(page) == clean) == (strength == 0), way


def test_half_a_turn_is_half_a_turn(page: Page, page_url: str) -> None:
    visit(page, page_url, "bars")
    clean = np.array(values(page))
    page.put("#corruption-kind", "rotation")
    page.put("#strength", "100")
    assert (np.array(values(page)) == clean[::-1, ::-1]).all()


def test_a_noisy_picture_is_stranger_than_the_clean_one(page: Page, page_url: str) -> None:
    visit(page, page_url, "bars")
    here = "parseFloat(document.querySelector('.here').style.left)"
    clean = page.run(here)
    page.put("#strength", "100")
    page.wait(f"{here} > {clean}")


def field(page: Page, name: str) -> str:
    """The id of a column's field."""
    script = f"[...document.querySelectorAll('#row-form label')].find((each) => each.textContent === '{name}').htmlFor"
    return str(page.run(script))


def fill(page: Page, name: str, text: str) -> str:
    where = field(page, name)
    page.replace(f"#{where}", text)
    return where


def test_a_row_is_a_form(page: Page, page_url: str) -> None:
    visit(page, page_url, "table")
    age, city = field(page, "age"), field(page, "city")
    assert page.text(f"#{age}-hint") == "18 to 90"
    assert page.text(f"#{field(page, 'income')}-hint") == "0 to 9000, or missing"
    assert page.run(f"[...document.querySelector('#{city}').options].map((each) => each.text)") == [
        "Bern",
        "Köln",
        "missing",
    ]
    fill(page, "age", "41")
    page.press("Enter")
    page.settle()
    page.put(f"#{city}", " missing")
    if not page.run("document.querySelector('.hole input').checked"):
        page.click(".hole input")
    sent = values(page)
    assert (sent["age"], sent["city"], sent["income"]) == (41, None, None)
    assert sent["member"] in ("false", "true")
    fill(page, "age", "99999")
    assert page.run(f"document.querySelector('#{age}').closest('.column').classList.contains('outside')")
    page.press("Enter")
    page.wait("document.querySelector('#verdicts').dataset.level === 'bad'")
    assert "values that never occurred" in page.text("#verdicts")


@pytest.mark.parametrize(("text", "words"), [("forty", "to be a finite number"), ("", "to have a value")])
def test_the_field_that_is_refused_is_outlined(page: Page, page_url: str, text: str, words: str) -> None:
    visit(page, page_url, "table")
    age = fill(page, "age", "1")
    fill(page, "age", text) if text else page.press("Backspace")
    page.press("Enter")
    page.wait(f"document.querySelector('#{age}').getAttribute('aria-invalid') === 'true'")
    told = page.text(f"#{age}-error")
    assert told.startswith("Expected age ")
    assert words in told
    assert page.run(f"document.querySelector('#{age}').getAttribute('aria-describedby').includes('{age}-error')")
    assert page.run("document.querySelectorAll('[aria-invalid]').length") == 1
    assert page.run("document.querySelector('#result').hidden")  # an answer would be another row's
    assert page.run(f"getComputedStyle(document.querySelector('#{age}')).outlineStyle") == "solid"
    fill(page, "age", "41")
    page.press("Enter")
    page.settle()
    page.wait("!document.querySelector('[aria-invalid]')")


@pytest.mark.parametrize(
    ("typed", "words"), [("[[1, 2], [3]]", "64 numbers"), ("[1, 2,", "This is not JSON")], ids=["ragged", "half"]
)
def test_numbers_that_do_not_fit_are_refused_where_they_stand(
    page: Page, page_url: str, typed: str, words: str
) -> None:
    visit(page, page_url, "bars")
    page.run("document.querySelector('#numbers').open = true")
    page.replace("#values", typed)
    page.click("#predict")
    page.wait("document.querySelector('#values').getAttribute('aria-invalid') === 'true'")
    assert words in page.text("#input-problem")


def test_a_text_without_words_is_refused_at_its_box(page: Page, page_url: str) -> None:
    visit(page, page_url, "text")
    page.click("#clear")
    page.wait("document.activeElement.id === 'text'")
    page.click("#predict")
    page.wait("document.querySelector('#text').getAttribute('aria-invalid') === 'true'")
    assert "to hold words" in page.text("#input-problem")


def test_a_text_loses_words_but_never_all(page: Page, page_url: str) -> None:
    visit(page, page_url, "text")
    page.replace("#text", "my card is lost now")
    counts = []
    for strength in (0, 40, 100):
        page.put("#strength", str(strength))
        counts.append(len(page.run("document.querySelector('#text').value").split()))
    assert counts == [5, 3, 1]


@pytest.mark.parametrize("model", ["table", "text", "row", "pixels"])
def test_a_page_of_every_kind_shows_an_answer(page: Page, page_url: str, model: str) -> None:
    visit(page, page_url, model)
    card = httpx.get(f"{page_url}/v1/models/{model}").json()
    assert page.run("document.querySelectorAll('#bars li').length") == len(card["classes"])
    assert page.run("document.querySelectorAll('.tile').length") == 2
    assert card["example_source"] == "held_out"
    answer = httpx.post(f"{page_url}/v1/models/{model}/predict", json={"instances": [card["example"]]}).json()
    assert answer["predictions"][0]["ood"]["flagged"] is False
