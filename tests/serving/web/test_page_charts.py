"""The page in a real browser: what a model does, live."""

from __future__ import annotations

import json
import re

import httpx
import numpy as np
import pytest
from scipy.stats import binomtest

from tests.serving.web.browser import Page, needs_chromium
from tests.serving.web.conftest import draw_digits

pytestmark = needs_chromium
NEWEST = "[...document.querySelectorAll('#chart-rows tr:first-child td')].map((each) => each.textContent)"
INKED = """[...document.querySelectorAll('.plot canvas')].map((canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  return new Set(Array.from({length: data.length / 4}, (_, i) => data.slice(4 * i, 4 * i + 4).join())).size;
})"""


def imported(page: Page, url: str, module: str, expression: str) -> object:
    """What an expression gives that uses a module of the page."""
    if not page.run("location.href").startswith(url):
        page.visit(f"{url}/")
    return page.run(f"import('./static/{module}.js').then((it) => {expression})")


@pytest.mark.parametrize(("count", "rows"), [(0, 7), (7, 7), (3, 50), (1, 100000)])
def test_an_interval_is_wilsons(page: Page, page_url: str, count: int, rows: int) -> None:
    expected = binomtest(count, rows).proportion_ci(0.95, method="wilson")
    got = imported(page, page_url, "statistics", f"it.wilson({count}, {rows})")
    assert isinstance(got, dict)
    assert got == {
        "share": pytest.approx(count / rows),
        "low": pytest.approx(expected.low, abs=1e-7),
        "high": pytest.approx(expected.high, abs=1e-7),
    }


def test_a_quantile_of_buckets_is_that_of_what_was_counted(page: Page, page_url: str) -> None:
    bounds = np.arange(1, 41) / 20
    seconds = np.random.default_rng(0).gamma(2, 0.2, 5000)
    counts = np.bincount(np.searchsorted(bounds, seconds), minlength=len(bounds) + 1)
    for q in (0.5, 0.99):
        call = f"it.quantile({json.dumps(bounds.tolist())}, {json.dumps(counts.tolist())}, {q})"
        assert imported(page, page_url, "statistics", call) == pytest.approx(np.quantile(seconds, q), abs=0.05)
    assert imported(page, page_url, "statistics", "it.quantile([1, 2], [0, 0, 0], .5)") is None
    assert imported(page, page_url, "statistics", "it.quantile([1, 2], [0, 0, 4], .5)") == 2
    assert imported(page, page_url, "statistics", "it.quantile([1, 2], [0, 4, 0], .5)") == 1.5


def test_another_version_begins_a_timeline_anew(page: Page, page_url: str) -> None:
    script = """(() => {
      const line = new it.Timeline();
      const look = (version, second, rows) => line.add({
        model: {version}, time: new Date(1e12 + 1000 * second).toISOString(), requests: {200: rows}, rows, judged: rows,
        seconds: {bounds: [1], counts: [rows, 0]}, flagged: {unfamiliar: rows / 4},
      }, {e_value: 100});
      look('1', 0, 100); look('1', 2, 140);
      const [point] = line.points;
      look('2', 3, 0);
      const renewed = line.points.length;
      look('2', 4, 8); look('2', 5, 4);
      return [point, renewed, line.points.length];
    })()"""
    got = imported(page, page_url, "timeline", script)
    assert isinstance(got, list)
    point, *lengths = got
    assert (point["rows"], point["requests"], point["failed"], point["logE"]) == (20, 20, 0, 2)
    assert point["flagged"]["share"] == 0.25
    assert lengths == [0, 0]


def test_the_charts_show_what_was_counted(page: Page, store_url: str) -> None:
    before = httpx.get(f"{store_url}/v1/models/digits/activity").json()
    page.visit(f"{store_url}/?view=charts&model=digits")
    page.wait("document.querySelectorAll('.plot canvas').length === 4")
    page.wait("document.querySelector('#charts-total').textContent")
    page.run("document.querySelector('#chart-numbers').open = true")
    images = draw_digits(40, 2)[0]
    images[:10] = 16 - images[:10]
    answer = httpx.post(f"{store_url}/v1/models/digits/predict", json={"instances": images.tolist()}).json()
    flagged = sum(each["ood"]["flagged"] for each in answer["predictions"])
    assert flagged >= 9
    page.wait(f"{NEWEST}[4]?.endsWith('%') && parseFloat({NEWEST}[2]) > 0")
    _, rows, requests, failed, share, interval, e_value, median, slowest = page.run(NEWEST)
    expected = binomtest(flagged, 40).proportion_ci(0.95, method="wilson")
    assert float(share.rstrip("%")) == pytest.approx(100 * flagged / 40, abs=0.06)
    assert [float(each) for each in re.findall(r"[\d.]+", interval)] == [
        pytest.approx(100 * each, abs=0.06) for each in (expected.low, expected.high)
    ]
    assert float(rows.removesuffix("/s")) == pytest.approx(40 * float(requests.removesuffix("/s")), rel=0.5)
    assert failed == "0.0/s"
    assert e_value != "–"
    assert 0 < float(median.split()[0]) <= float(slowest.split()[0])
    after = httpx.get(f"{store_url}/v1/models/digits/activity").json()
    assert after["rows"] - before["rows"] == 40
    assert f": {after['rows']} rows, {sum(after['flagged'].values())} of {after['judged']} judged" in page.text(
        "#charts-total"
    )
    assert min(page.run(INKED)) > 4  # the lines, their axes and labels
    page.click("#pause")
    assert page.run("document.querySelector('#pause').getAttribute('aria-pressed')") == "true"


def test_the_charts_are_those_of_the_model_that_is_chosen(page: Page, page_url: str) -> None:
    page.visit(f"{page_url}/?view=charts&model=nobody")
    page.wait("document.querySelectorAll('.plot canvas').length === 4")
    page.wait("document.querySelector('#charts-total').textContent.startsWith('bars, version')")
    assert page.text("#problem") == "There is no model nobody here; this is bars."
    page.put("#model", "row")
    page.wait("document.querySelector('#charts-total').textContent.startsWith('row, version')")
    assert page.run("location.search") == "?view=charts&model=row"
