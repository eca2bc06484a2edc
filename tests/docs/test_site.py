"""The documentation site builds without a complaint, loads nothing from elsewhere and has every public name."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
FACES = {name: import_module(name) for name in ("dubio", "dubio.models", "dubio.uncertainty", "dubio.training")}
# What a browser loads by itself; an `a` is followed by a reader.
LOADED = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
}
NOT_LOADED = {"canonical", "next", "prev", "alternate"}


class Resources(HTMLParser):
    """Collects what a page makes a browser load, and its classes."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.classes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.classes |= set((given.get("class") or "").split())
        if not NOT_LOADED & set((given.get("rel") or "").split()):
            self.urls += [given[LOADED[tag]] or ""] if given.get(LOADED.get(tag, "")) else []
        self.urls += re.findall(r"url\(([^)]*)\)", given.get("style") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documentation") / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def _exported() -> dict[str, object]:
    return {f"{face}.{name}": getattr(module, name) for face, module in FACES.items() for name in module.__all__}


def _documented() -> list[str]:
    texts = [page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.md"))]
    return [name for text in texts for name in re.findall(r"^::: ([\w.]+)", text, flags=re.MULTILINE)]


def test_a_browser_loads_nothing_from_elsewhere(site: Path):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        resources = Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        assert len(resources.urls) >= 3, page
        assert [url for url in resources.urls if re.match(r"(?:https?:)?//", url)] == [], page
        # The theme's script fetches a library for diagrams, and a repository's figures, where a page has these.
        assert not {"mermaid", "md-source"} & resources.classes, page
        missing = [url for url in resources.urls if not url.startswith("data:") and not (page.parent / url).exists()]
        assert page.name == "404.html" or missing == [], page
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import\s+)[\"']?(?:https?:)?//[^)\"']*", style.read_text(encoding="utf-8")) == []


def test_what_is_outside_docs_is_in_the_site(site: Path):
    for page, title in [("index", "Dubio"), ("changelog", "Changelog"), ("contributing", "Contributing")]:
        assert f'<h1 id="{title.lower()}">{title}' in (site / f"{page}.html").read_text(encoding="utf-8")


def test_each_public_name_has_a_place_and_a_text_in_the_site(site: Path):
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html")}
    for name in _documented():
        text = next(text for text in pages.values() if f'id="{name}"' in text)
        _, _, behind = text.partition(f'id="{name}"')
        contents = behind.partition('<div class="doc doc-contents')[2]
        assert re.match(r'[^>]*>\s*(?:<p class="doc doc-class-bases">.*?</p>)?\s*<p>[^<]', contents, flags=re.DOTALL), (
            name
        )


def test_what_is_exported_is_what_is_documented():
    exported = _exported()
    documented = _documented()
    assert sorted(set(documented)) == sorted(documented), "documented twice"
    assert set(documented) <= set(exported)
    # A name that two faces have is documented once.
    assert [name for name in exported if not any(exported[name] is exported[other] for other in documented)] == []


@pytest.mark.parametrize("face", FACES)
def test_a_face_lists_its_names_once_and_in_order(face: str):
    names = FACES[face].__all__
    assert len(set(names)) == len(names) > 0
    assert set(names) <= set(dir(FACES[face]))
    scope: dict[str, object] = {}
    exec(f"from {face} import *", scope)
    assert set(scope) - {"__builtins__"} == set(names)


@pytest.mark.parametrize("name", _documented())
def test_a_public_name_has_a_docstring_of_its_own(name: str):
    thing = _exported()[name]
    if isinstance(thing, type) or inspect.isfunction(thing):
        text = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
        assert text, name
        # What a dataclass writes by itself is no text.
        assert not text.startswith(f"{getattr(thing, '__name__', '')}("), name
        assert text.split("\n\n")[0].strip().endswith("."), name
