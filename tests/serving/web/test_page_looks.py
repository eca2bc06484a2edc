"""The page in a real browser: colours, names and sizes, in light and dark, on a desk and on a phone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.serving.web.browser import Page, needs_chromium

pytestmark = needs_chromium

# WCAG 2.2: 4.5 to 1 for text.
LEAST_CONTRAST = 4.5
CONTRASTS = """(() => {
  const parse = (colour) => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const light = (colour) => colour.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let it = element; it; it = it.parentElement) {
      const colour = parse(getComputedStyle(it).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const poor = [];
  let seen = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest(":disabled, noscript, select")) continue;
    const [front, back] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    seen += 1;
    if (ratio < LEAST) poor.push(`${element.tagName} ${element.id} ${element.className}: ${ratio.toFixed(2)}`);
  }
  return [seen, poor];
})()""".replace("LEAST", str(LEAST_CONTRAST))

NAMELESS = """[...document.querySelectorAll("button, input, select, textarea, a, canvas[tabindex], [role=img], ul")]
  .filter((it) => it.checkVisibility() && it.type !== "submit")
  .filter((it) => !it.labels?.length && !it.innerText?.trim())
  .filter((it) => !it.getAttribute("aria-label") && !it.getAttribute("aria-labelledby"))
  .map((it) => it.outerHTML.slice(0, 80))"""


WIDTHS = {"phone": 390, "desk": 1280}
LOOKS = [
    ("bars", "phone", "light"),
    ("bars", "desk", "dark"),
    ("table", "phone", "dark"),
    ("table", "desk", "light"),
    *(
        pytest.param(*each, marks=pytest.mark.slow)
        for each in (
            ("bars", "phone", "dark"),
            ("bars", "desk", "light"),
            ("text", "phone", "light"),
            ("row", "desk", "dark"),
        )
    ),
]


@pytest.mark.parametrize(("model", "place", "scheme"), LOOKS)
def test_it_can_be_read(page: Page, page_url: str, model: str, place: str, scheme: str, tmp_path: Path) -> None:
    width = WIDTHS[place]
    page.look(width, scheme)
    page.visit(f"{page_url}/?model={model}")
    page.settle()
    for which in ("first", "last"):
        page.click(f".tile:{which}-child")
        page.settle()
        page.click("#copy-curl")
        page.wait("document.querySelector('#copied').textContent")
        seen, poor = page.run(CONTRASTS)
        assert seen > 40
        assert poor == []
        assert page.run(NAMELESS) == []
        assert page.run("document.documentElement.scrollWidth") <= width  # nothing to scroll sideways for
        page.picture(tmp_path / f"{model}-{place}-{scheme}-{which}.png")


def test_on_a_phone_names_and_numbers_stand_above_a_bar_of_the_whole_width(page: Page, page_url: str) -> None:
    page.look(390, "light")
    page.visit(f"{page_url}/")
    page.settle()
    box = (
        "(name) => { const box = document.querySelector(`#bars li ${name}`).getBoundingClientRect();"
        "return [box.top, box.bottom, box.width]; }"
    )
    name, number, chart = (page.run(f"({box})('{each}')") for each in (".name", ".number", ".chart"))
    whole = page.run("document.querySelector('#bars').clientWidth")
    assert chart[2] == pytest.approx(whole, abs=1)
    assert max(name[1], number[1]) <= chart[0] + 0.5
    page.look(1280, "light")
    name, chart = (page.run(f"({box})('{each}')") for each in (".name", ".chart"))
    assert chart[2] < whole + 400
    assert chart[0] < name[1]  # side by side where there is room


def test_every_identifier_is_there_once_and_headings_skip_no_level(page: Page, page_url: str) -> None:
    page.visit(f"{page_url}/?model=table")
    page.settle()
    ids = page.run("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(ids) == len(set(ids))
    named = page.run(
        "['aria-labelledby', 'aria-describedby', 'for'].flatMap((name) => [...document.querySelectorAll(`[${name}]`)]"
        ".flatMap((each) => each.getAttribute(name).split(' ')))"
    )
    assert set(named) <= set(ids)
    levels = page.run("[...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
