"""The page in a real browser: one view at a time, each readable in light and dark, on a desk and on a phone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.serving.web.browser import Page, needs_chromium
from tests.serving.web.conftest import draw_digits, keep
from tests.serving.web.test_page_looks import CONTRASTS, NAMELESS, WIDTHS

pytestmark = needs_chromium
SHOWN = "[...document.querySelectorAll('.view[id^=view-]')].filter((each) => !each.hidden).map((each) => each.id)"
READY = {
    "review": "document.querySelector('#review-status').textContent.startsWith('1 of')",
    "charts": "document.querySelectorAll('#chart-rows tr').length > 0",
    "shadow": "document.querySelector('#shadow-standing').textContent",
}


@pytest.mark.parametrize(
    ("view", "place", "scheme"),
    [
        ("review", "phone", "dark"),
        ("charts", "phone", "light"),
        ("shadow", "phone", "light"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (("review", "desk", "light"), ("charts", "desk", "dark"), ("shadow", "desk", "dark"))
        ),
    ],
)
def test_it_can_be_read(page: Page, store_url: str, view: str, place: str, scheme: str, tmp_path: Path) -> None:
    keep(store_url, "digits", (16 - draw_digits(3, 2)[0][:, 0]).tolist(), f"{view}-{place}-{scheme}")
    page.look(WIDTHS[place], scheme)
    page.visit(f"{store_url}/?view={view}&model=digits")
    if view == "charts":
        page.wait("document.querySelectorAll('.plot canvas').length === 4")
        page.run("document.querySelector('#chart-numbers').open = true")
    page.wait(READY[view])
    seen, poor = page.run(CONTRASTS)
    assert seen > 10
    assert poor == []
    assert page.run(NAMELESS) == []
    assert page.run("document.documentElement.scrollWidth") <= WIDTHS[place]
    levels = page.run(
        "[...document.querySelectorAll('h1, h2, h3')].filter((it) => it.checkVisibility())"
        ".map((it) => Number(it.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    page.picture(tmp_path / f"{view}-{place}-{scheme}.png")


def test_views_are_in_the_address_and_can_be_gone_back(page: Page, store_url: str) -> None:
    page.visit(f"{store_url}/?model=table")
    page.settle()
    assert page.run(SHOWN) == ["view-try"]
    loaded = "performance.getEntriesByType('resource').map((each) => each.name.split('/').at(-1))"
    assert not {"uPlot.iife.min.js", "review.js", "live_charts.js", "comparison.js"} & set(page.run(loaded))
    for view in ("review", "shadow", "charts"):
        page.click(f"[data-view={view}]")
        page.wait(f"location.search === '?model=table&view={view}'")
        assert page.run(SHOWN) == [f"view-{view}"]
        assert page.run("document.querySelector('[aria-current=page]').dataset.view") == view
    page.wait("document.querySelectorAll('.plot canvas').length === 4")
    page.run("history.back()")
    page.wait("location.search === '?model=table&view=shadow'")
    page.wait(f"({SHOWN})[0] === 'view-shadow'")
    page.click("[data-view=try]")
    page.wait("location.search === '?model=table'")
    assert page.run("document.querySelector('#model').value") == "table"
    asked = httpx.get(f"{store_url}/v1/models/table/activity").json()["requests"]
    page.settle()  # what was there is there still, and nothing was asked again
    assert httpx.get(f"{store_url}/v1/models/table/activity").json()["requests"] == asked
