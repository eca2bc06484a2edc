"""The page in a real browser: a version and its shadow side by side, and the promotion."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from dubio.serving.settings import Settings
from tests.serving.web.browser import Page, needs_chromium

pytestmark = needs_chromium
INFER, ADMIN = "infer-secret-0123456789", "admin-secret-0123456789"


def test_without_a_shadow_it_says_how_to_make_one(page: Page, page_url: str) -> None:
    page.visit(f"{page_url}/?view=shadow")
    page.wait("document.querySelector('#shadow-standing').textContent")
    assert "folder of the model repository whose name ends in .shadow" in page.text("#shadow-standing")
    assert not page.run("document.querySelector('#promote').checkVisibility()")


@pytest.mark.slow
def test_a_shadow_is_compared_refused_and_forced(
    page: Page, serve: Callable, checkpoint: Path, second_checkpoint: Path, bars: np.ndarray, tmp_path: Path
) -> None:
    for source, version in ((checkpoint, "1"), (second_checkpoint, "2.shadow")):
        (tmp_path / "models" / "bars" / version).mkdir(parents=True)
        shutil.copy(source, tmp_path / "models" / "bars" / version / "model.ckpt")
    given = Settings(
        model_repository=tmp_path / "models",
        torch_threads=1,
        shadow_share=1.0,
        model_control="poll",
        poll_seconds=0.2,
        api_keys=f"infer:{INFER} admin:{ADMIN}",  # type: ignore[arg-type]
    )
    with serve(given) as url, httpx.Client(base_url=url, headers={"X-API-Key": INFER}, timeout=60) as client:
        page.visit(f"{url}/?view=shadow")
        page.wait("!document.querySelector('#access').hidden")
        page.write(INFER)
        page.press("Enter")
        page.wait("document.querySelector('#shadow-standing').textContent.includes('answers a copy')")
        # Too few for evidence that two versions that agree do.
        client.post("/v1/models/bars/predict", json={"instances": bars[:10].tolist()}).raise_for_status()
        page.wait("!document.querySelector('#comparison').hidden")
        compared = (
            "Number([...document.querySelectorAll('#comparison-rows tr')]"
            ".find((each) => each.innerText.startsWith('Rows compared'))?.querySelector('td').textContent)"
        )
        page.wait(f"{compared} > 0")
        known = client.get("/v1/models/bars/comparison").json()
        rows = page.run("[...document.querySelectorAll('#comparison-rows tr')].map((each) => each.innerText)")
        headings = [row.partition("\t")[0] for row in rows[:5]]
        assert headings == ["Flagged", "Time of a request", "Right", "Rows compared", "Agreement"]
        assert known["rows"] >= page.run(compared)
        assert page.run("document.querySelectorAll('#comparison-evidence meter').length") == 1
        page.picture(tmp_path / "shadow.png")
        page.click("#promote")
        page.wait("!document.querySelector('#access').hidden")
        assert page.text("#key-scope") == "admin"
        page.write(ADMIN)
        page.press("Enter")
        page.wait("document.querySelector('#access').hidden && !document.querySelector('#comparison').hidden")
        page.click("#promote")
        page.wait("document.querySelector('#promotion').textContent.startsWith('Promotion refused: Expected evidence')")
        page.click("#force")
        page.wait("document.querySelector('#confirm').open")
        page.click("#confirm-no")
        page.wait("!document.querySelector('#confirm').open")
        assert client.get("/v2/models/bars").json()["versions"] == ["1"]
        page.click("#force")
        page.wait("document.querySelector('#confirm').open")
        page.click("#confirm-yes")
        page.wait("document.querySelector('#promotion').textContent === 'Version 2 answers now.'")
        assert client.get("/v1/models/bars").json()["version"] == "2"
    page.run("sessionStorage.clear()")
    page.complaints.clear()
