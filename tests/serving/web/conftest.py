"""One browser, and one service with a model of each kind of input, for all tests of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dubio.serving.settings import Settings
from tests.serving.web.browser import Page, open_browser


@pytest.fixture(scope="session")
def page_url(
    serve: Callable,
    checkpoint: Path,
    numbers_checkpoint: Path,
    table_checkpoint: Path,
    text_checkpoint: Path,
    pixels_checkpoint: Path,
) -> Iterator[str]:
    """The service: `bars` is a trained model, the others are not."""
    paths = (checkpoint, numbers_checkpoint, table_checkpoint, text_checkpoint, pixels_checkpoint)
    with serve(Settings(models=tuple(map(str, paths)), torch_threads=1)) as url:
        yield url


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The browser's tab, which every test leads elsewhere."""
    with open_browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """The tab as a desktop shows it; what the browser complains of fails the test."""
    browser.look(1280, "light")
    yield browser
    assert browser.complaints == []
