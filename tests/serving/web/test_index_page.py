from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape

import httpx
import pytest


def test_the_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for link in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        if link != "data:,":
            assert "//" not in link
            assert client.get(f"/{link}").status_code == 200, link


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCRIPTS = ["page.js", "explanation.js"]


@pytest.mark.parametrize(
    ("name", "media_type"), [("page.css", "text/css"), *((script, "text/javascript") for script in SCRIPTS)]
)
def test_its_files_have_their_types(client: httpx.Client, name: str, media_type: str) -> None:
    response = client.get(f"/static/{name}")
    assert response.headers["content-type"].startswith(media_type)
    assert "http" not in response.text


def test_every_element_the_script_names_is_on_the_page(client: httpx.Client) -> None:
    scripts = "".join(client.get(f"/static/{name}").text for name in SCRIPTS)
    named = set(re.findall(r'\$\("([\w-]+)"\)', scripts))
    there = set(re.findall(r'\bid="([\w-]+)"', client.get("/").text))
    assert named <= there


def test_nothing_else_in_the_folder_is_served(client: httpx.Client) -> None:
    for path in ["/static/", "/static/../settings.py", "/static/%2e%2e/settings.py"]:
        assert client.get(path).status_code == 404


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; Debian's package `chromium` brings one")
def test_a_browser_shows_the_answer_and_what_explains_it(url: str) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    shown = subprocess.run(
        [str(CHROMIUM), *options, f"{url}/"], capture_output=True, text=True, timeout=120, check=True
    )
    text = unescape(re.sub(r"<[^>]+>", " ", shown.stdout))
    assert "p-value of each score alone: mutual information" in text
    assert len(re.findall(r"row 1[01]\d\d, distance", text)) == 5
    assert shown.stdout.count('src="data:image/png;base64,') > 0
