from __future__ import annotations

import re
from hashlib import sha256
from importlib.resources import files

import httpx
import pytest

FOLDER = files("dubio.serving.web").joinpath("static")
NAMES = sorted(file.name for file in FOLDER.iterdir() if file.is_file())
# Of uPlot 1.6.32.
PUBLISHED = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
SCRIPTS = [name for name in NAMES if name.endswith(".js")]


def test_the_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for link in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        if link != "data:,":
            assert "//" not in link
            assert client.get(f"/{link}").status_code == 200, link


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("page.css", "text/css"), ("views.css", "text/css"), *((script, "text/javascript") for script in SCRIPTS)],
)
def test_its_files_have_their_types(client: httpx.Client, name: str, media_type: str) -> None:
    response = client.get(f"/static/{name}")
    assert response.headers["content-type"].startswith(media_type)
    assert "http" not in response.text


def test_nothing_is_made_into_markup(client: httpx.Client) -> None:
    scripts = "".join(client.get(f"/static/{name}").text for name in SCRIPTS)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", scripts)


def test_what_a_script_imports_is_there(client: httpx.Client) -> None:
    for name in SCRIPTS:
        for imported in re.findall(r'(?:from |import\()"\./([\w.]+)"', client.get(f"/static/{name}").text):
            assert imported in SCRIPTS, name


def test_every_element_the_scripts_name_is_on_the_page(client: httpx.Client) -> None:
    scripts = "".join(client.get(f"/static/{name}").text for name in SCRIPTS)
    named = set(re.findall(r'\$\("([\w-]+)"\)', scripts))
    there = set(re.findall(r'\bid="([\w-]+)"', client.get("/").text))
    assert named <= there


def test_no_file_of_the_page_is_long() -> None:
    lines = {name: len(FOLDER.joinpath(name).read_text().splitlines()) for name in NAMES}
    assert max(lines[name] for name in SCRIPTS) <= 200
    assert max(lines.values()) <= 400


def test_the_library_of_the_charts_is_served_as_it_was_published_and_has_its_licence(client: httpx.Client) -> None:
    vendor = FOLDER.joinpath("vendor")
    for name, media_type in (("uPlot.iife.min.js", "text/javascript"), ("uPlot.min.css", "text/css")):
        response = client.get(f"/static/vendor/{name}")
        assert response.headers["content-type"].startswith(media_type)
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert sha256(response.content).hexdigest() == PUBLISHED[name]
    assert "MIT License" in vendor.joinpath("LICENSE").read_text()
    assert client.get("/static/vendor/LICENSE").status_code == 404


def test_nothing_else_in_the_folder_is_served(client: httpx.Client) -> None:
    for path in ["/static/", "/static/page.html", "/static/../settings.py", "/static/%2e%2e/settings.py"]:
        assert client.get(path).status_code == 404
