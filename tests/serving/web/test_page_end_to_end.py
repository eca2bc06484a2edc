"""A digit is drawn and read, a stranger is painted and flagged, labelled by keyboard, and found in the export."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sklearn.datasets import load_digits

from dubio.training import Arrays
from tests.serving.web.browser import Page, needs_chromium

pytestmark = needs_chromium
SIDE = 8


def paint(page: Page, *strokes: list[tuple[float, float]]) -> None:
    """Draw strokes, each through points in pixels of the picture, beginning with none of it."""
    page.click("#clear")
    page.settle()
    for points in strokes:
        page.mouse(*(page.at("#grid", x / SIDE, y / SIDE) for x, y in points))
    page.settle()


def newest(url: str) -> Any:
    """The input that was stored last."""
    query = {"limit": "1", "inputs": "true"}
    listed = httpx.get(f"{url}/v1/reviews", params=query).raise_for_status().json()["reviews"]
    return listed[0]["input"]["instance"] if listed else None


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_from_a_drawing_to_a_row_of_training_data(page: Page, store_url: str, tmp_path: Path) -> None:
    page.visit(f"{store_url}/?model=digits")
    page.settle()
    paint(page, [(4, 0.5), (4, 7.5)])
    page.wait("document.querySelector('#mc-label').textContent === '1'")
    assert page.text("#label") == "1"
    assert page.run("document.querySelector('#verdicts').dataset.level") != "bad"

    paint(page, *([(0, y + 0.5), (SIDE, y + 0.5)] for y in range(0, SIDE, 2)))
    page.wait("document.querySelector('#verdicts').dataset.level === 'bad'")
    assert "A stranger" in page.text("#verdicts")
    painted = np.array(page.run("JSON.parse(document.querySelector('#values').value)"), np.float32)

    wait_until(lambda: newest(store_url) == painted[None].tolist())
    page.click("[data-view=review]")
    page.wait("document.querySelector('#review-status').textContent.startsWith('1 of')")
    page.press("8")
    page.wait("document.querySelector('#review-status').textContent.startsWith('Noted: labelled 8.')")
    page.save_files_in(tmp_path)
    page.click("[data-export=npz]")
    wait_until((tmp_path / "reviews.npz").exists)
    digits, reviewed = load_digits(), np.load(tmp_path / "reviews.npz")
    [place] = [i for i, x in enumerate(reviewed["x"]) if np.array_equal(x[0], painted)]
    assert reviewed["y"][place] == "8"
    splits = np.resize(["train", "validation", "select", "calibration", "test"], len(digits.target))
    np.savez(
        tmp_path / "more.npz",
        x=np.concatenate([digits.images, reviewed["x"][place]]),
        y=np.append(digits.target.astype(str), reviewed["y"][place]),
        split=np.append(splits, "train"),
    )
    dataset = Arrays(str(tmp_path / "more.npz")).load()
    assert len(digits.target) in dataset.rows["train"]
