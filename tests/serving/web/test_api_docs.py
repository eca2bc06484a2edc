from __future__ import annotations

import base64
import hashlib
import re

import httpx
import pytest


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_page_and_all_it_needs_come_from_here(client: httpx.Client, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    wanted = re.findall(r"(?:src|href|spec-url|url)\s*[=:]\s*[\"']([^\"']+)", page.text)
    assert "openapi.json" in wanted
    for address in wanted:
        # Relative to the page, which a proxy may publish anywhere.
        assert address == "data:," or re.match(r"[a-z]+[./][a-z./-]+\Z", address), f"{address} is not of this service"
        if address != "data:,":
            assert client.get(f"/{address}").status_code == 200
    assert "//" not in page.text.replace("https://cdn.redoc.ly", "") or not re.search(r"https?://", page.text)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_only_scripts_of_its_own_run_there(client: httpx.Client, path: str) -> None:
    page = client.get(path)
    rules = dict(rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["connect-src"] == "'self'"
    inline = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in inline]
    assert rules["script-src"].split() == ["'self'", *(f"'sha256-{digest}'" for digest in digests)]
    assert not re.search(r"\son[a-z]+=", page.text)
