"""One browser, and one service with a model of each kind of input, for all tests of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from dubio.models import MLP, InputSpec, NetworkSpec
from dubio.serving.settings import Settings
from tests.serving.conftest import write_checkpoint
from tests.serving.web.browser import Page, open_browser

DIGITS = tuple(map(str, range(10)))


def draw_digits(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of the part that a seed names: 0 and 1 are trained on, 2 and 3 are held out."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    chosen = order[{0: 0, 1: 0, 2: 1000, 3: 1250}[seed] :][:rows]
    return data.images[chosen][:, None].astype(np.float32), data.target[chosen]


@pytest.fixture(scope="session")
def digits_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that learnt to read digits in a second."""
    arguments = {"in_features": 64, "widths": [128, 64], "num_classes": 10, "rates": [0.3, 0.2]}
    inputs = InputSpec(kind="image", shape=(1, 8, 8), mean=(4.9,), std=(6.0,), low=0.0, high=16.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(**arguments)
        x, y = (torch.from_numpy(part) for part in draw_digits(1000, 0))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network((x - 4.9) / 6), y).backward()
            optimizer.step()
    path = tmp_path_factory.mktemp("runs") / "digits.ckpt"
    spec = NetworkSpec(class_path="dubio.models.MLP", init_args=arguments)
    return write_checkpoint(path, network, spec, inputs, draw_digits, DIGITS)


@pytest.fixture(scope="session")
def store_url(
    serve: Callable,
    digits_checkpoint: Path,
    table_checkpoint: Path,
    text_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """A service that keeps what it flags, and nothing else unless it is asked to."""
    paths = (digits_checkpoint, table_checkpoint, text_checkpoint)
    store = tmp_path_factory.mktemp("store") / "store.sqlite"
    with serve(Settings(models=tuple(map(str, paths)), torch_threads=1, store=store, store_share=0)) as url:
        yield url


def keep(url: str, model: str, instances: list, request_id: str) -> list[dict]:
    """Ask, and wait until all rows are in the store."""
    asked = {"Dubio-Store": "wait", "X-Request-Id": request_id}
    answer = httpx.post(f"{url}/v1/models/{model}/predict", json={"instances": instances}, headers=asked, timeout=30)
    assert answer.raise_for_status().headers["dubio-stored"] == "true"
    return list(answer.json()["predictions"])


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
