from __future__ import annotations

import re
from importlib.resources import files

import httpx
import pytest

NAMES = sorted(file.name for file in files("dubio.serving.web").joinpath("static").iterdir())
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
    ("name", "media_type"), [("page.css", "text/css"), *((script, "text/javascript") for script in SCRIPTS)]
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
        for imported in re.findall(r'from "\./([\w.]+)"', client.get(f"/static/{name}").text):
            assert imported in SCRIPTS, name


def test_every_element_the_scripts_name_is_on_the_page(client: httpx.Client) -> None:
    scripts = "".join(client.get(f"/static/{name}").text for name in SCRIPTS)
    named = set(re.findall(r'\$\("([\w-]+)"\)', scripts))
    there = set(re.findall(r'\bid="([\w-]+)"', client.get("/").text))
    assert named <= there


def test_no_file_of_the_page_is_long() -> None:
    folder = files("dubio.serving.web").joinpath("static")
    assert max(len(folder.joinpath(name).read_text().splitlines()) for name in NAMES) <= 400


def test_nothing_else_in_the_folder_is_served(client: httpx.Client) -> None:
    for path in ["/static/", "/static/page.html", "/static/../settings.py", "/static/%2e%2e/settings.py"]:
        assert client.get(path).status_code == 404
