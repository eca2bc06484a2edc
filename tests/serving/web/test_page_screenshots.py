"""What the docs show of the page: the views are filled as a user fills them, and their pictures written if asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from dubio.serving.settings import Settings
from dubio.training import Digits
from tests.serving.web.browser import Page, needs_chromium
from tests.serving.web.conftest import keep

pytestmark = [needs_chromium, pytest.mark.slow]
DOCS = Path(__file__).parents[3] / "docs"
REWRITE = "DUBIO_REWRITE_SCREENSHOTS"
WIDTH, MOST_BYTES, COLOURS = 1100, 150_000, 256


@pytest.fixture(scope="module")
def url(serve: Callable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The README's model with a store."""
    folder = tmp_path_factory.mktemp("screenshots")
    command = [sys.executable, "-m", "dubio.training", "fit", "--config", "digits_mlp"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    path = folder / "runs" / "digits_mlp" / "model.ckpt"
    with serve(Settings(models=(str(path),), torch_threads=1, store=folder / "store.sqlite", store_share=0)) as url:
        yield url


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Held-out digits [N, 8, 8]."""
    return Digits().raw("test")[0].numpy()[:, 0]


def save(page: Page, name: str, height: int, tmp_path: Path) -> None:
    """Take a picture of fixed size, in few colours, and put it into the docs if that is asked."""
    page.look(WIDTH, "light", height)
    page.run("scrollTo(0, 0)")
    page.picture(tmp_path / "whole.png", whole=False)
    with Image.open(tmp_path / "whole.png") as shot:
        picture = shot.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    target = DOCS / name if os.environ.get(REWRITE) else tmp_path / name
    picture.save(target, optimize=True)
    assert picture.size == (WIDTH, height)
    assert len(picture.getcolors()) > COLOURS / 2  # not a blank page
    assert target.stat().st_size < MOST_BYTES
    with Image.open(DOCS / name) as kept:
        assert kept.size == (WIDTH, height), f"if that is meant, {REWRITE}=1 writes it"


def test_the_charts_see_strangers_come(page: Page, url: str, images: np.ndarray, tmp_path: Path) -> None:
    page.look(WIDTH, "light")
    page.visit(f"{url}/?view=charts")
    page.wait("document.querySelectorAll('.plot canvas').length === 4")
    draw = np.random.default_rng(0)
    points = "document.querySelectorAll('#chart-rows tr').length"
    page.run("document.querySelector('#chart-numbers').open = true")
    for second in range(40):
        for _ in range(4):
            rows = images[draw.integers(0, len(images), 3)]
            if second > 28:
                rows[0] = 16 - rows[0]
            httpx.post(f"{url}/v1/models/digits_mlp/predict", json={"instances": rows.tolist()}).raise_for_status()
        page.wait(f"{points} > {second}")
    page.run("document.querySelector('#chart-numbers').open = false")
    assert "flagged" in page.text("#charts-total")
    save(page, "charts.png", 900, tmp_path)


def test_the_queue_is_half_done(page: Page, url: str, images: np.ndarray, tmp_path: Path) -> None:
    strangers = [
        16 - images[0],
        np.rot90(images[3]),
        images[5].T,
        16 - images[7],
        np.rot90(images[11], 3),
        images[13][::-1],
    ]
    keep(url, "digits_mlp", [each.tolist() for each in strangers], "scanner-7")
    page.look(WIDTH, "light")
    page.visit(f"{url}/?view=review&kept=flagged&state=")
    page.wait("document.querySelector('#review-status').textContent.startsWith('1 of')")
    for key in "7-":
        page.press(key)
    page.wait("document.querySelector('#review-status').textContent.startsWith('Noted: not for us')")
    page.wait("document.querySelector('#item-input img').complete")
    save(page, "review.png", 1040, tmp_path)


def test_a_digit_is_turned_until_it_is_flagged(page: Page, url: str, tmp_path: Path) -> None:
    page.look(WIDTH, "light")
    page.visit(f"{url}/")
    page.settle()
    assert page.run("[...document.querySelectorAll('.tile .chip')].map((each) => each.className)") == [
        "chip good",
        "chip bad",
    ]
    page.put("#corruption-kind", "rotation")
    page.put("#strength", "15")
    page.wait("document.querySelector('#corruption-effect').textContent.startsWith('15%')")
    page.settle()
    save(page, "page.png", 1540, tmp_path)
