"""The page in a real browser: what a visitor sees at first, and what an answer says."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from dubio.models import load
from dubio.serving.settings import Settings
from tests.serving.web.browser import CONTROL, Page, needs_chromium

pytestmark = needs_chromium
KEY = "some-secret-0123456789"


def level(page: Page) -> str:
    return str(page.run("document.querySelector('#verdicts').dataset.level"))


def ask(url: str, instance: object, **parameters: object) -> dict:
    answer = httpx.post(f"{url}/v1/models/bars/predict", json={"instances": [instance], "parameters": parameters})
    return dict(answer.raise_for_status().json()["predictions"][0])


def test_at_first_a_familiar_input_stands_beside_a_stranger(page: Page, page_url: str) -> None:
    page.visit(f"{page_url}/")
    page.settle()
    tiles = page.run("[...document.querySelectorAll('.tile .chip')].map((each) => each.className)")
    assert tiles == ["chip good", "chip bad"]
    assert "held out of the training" in page.text(".tile")
    assert level(page) == "good"
    assert page.text("#verdicts").startswith("✓\nFamiliar, and certain")
    page.click(".tile:last-child")
    page.wait("document.querySelector('#verdicts').dataset.level === 'bad'")
    assert "A stranger: do not rely on the answer" in page.text("#verdicts")
    # A stranger's label set promises nothing, and shows no label.
    assert page.text("#label-set").startswith("No label set")
    assert page.run("document.querySelectorAll('#label-set .chip').length") == 0
    page.click(".tile:first-child")
    page.wait("document.querySelector('#verdicts').dataset.level === 'good'")


def test_the_numbers_shown_are_those_of_the_answer(page: Page, page_url: str) -> None:
    page.visit(f"{page_url}/")
    page.settle()
    page.click(".tile:last-child")  # whose numbers are not all 0 and 1
    page.wait("document.querySelector('#verdicts').dataset.level === 'bad'")
    answer = ask(page_url, json.loads(page.run("document.querySelector('#values').value")), explain=True)
    p, flag_level = answer["ood"]["p_value"], answer["ood"]["level"]
    stranger_than = re.match(r"Stranger than ([\d.]+)% of familiar inputs: p-value ([\d.]+)", page.text("#p-value"))
    assert stranger_than is not None
    assert float(stranger_than[1]) == pytest.approx(100 * (1 - p), abs=0.051)
    assert float(stranger_than[2]) == pytest.approx(p, rel=0.05)
    assert len(stranger_than[2].lstrip("0.")) <= 2  # digits that count, and no .2799999
    left = "(name) => parseFloat(document.querySelector(name).style.left)"
    assert page.run(f"({left})('.here')") == pytest.approx(100 * (1 - p), abs=1e-3)
    assert page.run(f"({left})('.edge')") == pytest.approx(100 * (1 - flag_level), abs=1e-3)
    widths = page.run("['own', 'between'].map((name) => parseFloat(document.querySelector(`.${name}`).style.width))")
    most = math.log(4)
    expected = [answer["uncertainty"][name] for name in ("expected_entropy", "mutual_information")]
    assert widths == pytest.approx([100 * value / most for value in expected], abs=1e-3)
    mean, std = max(zip(answer["mc"]["mean"], answer["mc"]["std"], strict=True))
    said = page.text("#mc-probability")
    assert std > 0.05
    for edge in (max(0, mean - std), min(1, mean + std)):
        assert f"{100 * edge:.1f}%".replace(".0%", "%") in said
    names = page.run("[...document.querySelectorAll('#bars .name')].map((each) => each.textContent)")
    assert names == [f"class-{i}" for i in range(4)]


def test_an_answer_is_explained(page: Page, page_url: str) -> None:
    page.visit(f"{page_url}/")
    page.settle()
    assert "p-value of each score alone: mutual information" in page.text("#explanation")
    near = page.run("[...document.querySelectorAll('#neighbours li')].map((each) => each.textContent)")
    assert len([each for each in near if re.match(r"row 1[01]\d\d, distance [\d.]+$", each)]) == 5
    page.wait("[...document.querySelectorAll('#neighbours img')].every((each) => each.complete)")
    pictures = page.run(
        "[...document.querySelectorAll('#neighbours img')].map((each) => [each.src.slice(0, 22), each.naturalWidth])"
    )
    # The checkpoint keeps those of some rows.
    assert 1 <= len(pictures) <= 5
    assert pictures == [["data:image/png;base64,", 8]] * len(pictures)


VERDICTS = [
    ("familiar and certain", {}, "good", "Yes: both answers are a, and it is accepted."),
    ("flagged", {"flagged": True, "p_value": 0.005, "reason": "unfamiliar"}, "bad", "It does not count"),
    ("hardly familiar", {"p_value": 0.048}, "doubt", "Hardly: not flagged, but stranger than 95.2% of familiar"),
    ("two answers", {"label": "b"}, "doubt", "the two answers differ (b, a)"),
    ("not accepted", {"accepted": False}, "doubt", "it is not accepted at a risk of 5%"),
    ("high entropy", {"entropy": 0.7}, "doubt", "the entropy is high (0.70 nats)"),
    ("no promise, and unsure", {"accepted": None, "mean": [0.58, 0.42, 0, 0]}, "doubt", "gives it 58%, less than 90%"),
    ("no promise, but sure", {"accepted": None}, "good", "Yes: both answers are a."),
    ("no calibration", {"flagged": None, "p_value": None, "reason": "not_calibrated"}, "doubt", "Unknown: this model"),
]


@pytest.mark.parametrize(
    ("given", "expected", "words"), [each[1:] for each in VERDICTS], ids=[each[0] for each in VERDICTS]
)
def test_green_is_for_what_passes_both_verdicts(
    page: Page, page_url: str, given: dict, expected: str, words: str
) -> None:
    answer = {
        "deterministic": {"label": given.get("label", "a")},
        "mc": {"label": "a", "mean": given.get("mean", [0.97, 0.03, 0, 0])},
        "uncertainty": {"predictive_entropy": given.get("entropy", 0.1)},
        "ood": {"flagged": False, "p_value": 0.4, "level": 0.03, "reason": None} | given,
        "decision": {"accepted": given.get("accepted", True), "risk": 0.05},
    }
    if not page.run("location.href").startswith(page_url):
        page.visit(f"{page_url}/")
    script = (
        "import('./static/verdict.js').then((verdict) => { const target = document.createElement('div');"
        f"document.body.append(target); verdict.showVerdicts(target, {json.dumps(answer)}, ['a', 'b', 'c', 'd']);"
        "return [target.dataset.level, target.innerText]; })"
    )
    shown, text = page.run(script)
    assert (shown, words in text) == (expected, True), text


def test_from_load_to_answer_by_keyboard_alone(page: Page, page_url: str) -> None:
    page.visit(f"{page_url}/")
    page.settle()
    for _ in range(30):
        page.press("Tab")
        if page.run("document.activeElement.id") == "grid":
            break
    else:
        raise AssertionError("the picture cannot be reached")
    before = json.loads(page.run("document.querySelector('#values').value"))
    counted = "performance.getEntriesByType('resource').filter((each) => each.name.endsWith('/predict')).length"
    asked = page.run(counted)
    for key in ["ArrowRight", "ArrowRight", "ArrowDown", " "]:
        page.press(key)
    page.wait(f"{counted} === {asked} + 1")  # painting by keyboard is predicted as painting by mouse is
    page.settle()
    after = json.loads(page.run("document.querySelector('#values').value"))
    assert after[1][2] == 16 >= before[1][2]
    page.press("Backspace")
    page.wait(f"{counted} === {asked} + 2")
    page.settle()
    assert json.loads(page.run("document.querySelector('#values').value"))[1][2] == 0
    page.press("Enter", CONTROL)
    page.wait(f"{counted} === {asked} + 3")
    assert "Ctrl+Enter predicts" in page.text(".keys")


def test_the_model_is_in_the_address(page: Page, page_url: str) -> None:
    page.visit(f"{page_url}/?model=table")
    page.settle()
    assert page.run("document.querySelector('#model').value") == "table"
    page.put("#model", "bars")
    page.wait(
        "location.search === '?model=bars' && document.querySelector('#about').innerText.includes('bars, version')"
    )
    page.visit(f"{page_url}/?model=nobody")
    page.wait("!document.querySelector('#problem').hidden")
    assert page.text("#problem") == "There is no model nobody here; this is bars."


@pytest.mark.parametrize("program", ["curl", "python"])
def test_what_is_copied_runs_as_it_is(page: Page, page_url: str, program: str, tmp_path: Path) -> None:
    page.visit(f"{page_url}/?model=text")
    page.settle()
    page.replace("#text", 'where\'s "my" card\\n über $HOME `ls` ?')
    page.click(f"#copy-{program}")
    page.wait("document.querySelector('#copied').textContent")
    snippet = page.run("document.querySelector('#snippet').textContent")
    command = ["sh", "-c", snippet] if program == "curl" else [sys.executable, "-c", snippet]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path)
    got = json.loads(done.stdout)["predictions"][0]
    assert got["ood"]["scores"]
    page.click("#predict")
    page.wait("document.querySelector('#p-value').textContent")
    page.settle()
    text = page.run("document.querySelector('#text').value")
    assert text == 'where\'s "my" card\\n über $HOME `ls` ?'
    direct = httpx.post(f"{page_url}/v1/models/text/predict", json={"instances": [text]}).json()["predictions"][0]
    assert got["mc"]["mean"] == pytest.approx(direct["mc"]["mean"], abs=1e-5)


def test_members_may_be_fewer_or_as_many_as_it_takes(page: Page, page_url: str) -> None:
    page.visit(f"{page_url}/")
    page.settle()
    assert page.run("[...document.querySelector('#samples').options].map((each) => each.value)") == [
        "",
        "auto",
        "2",
        "4",
        "8",
    ]
    for value, sentence in (("8", "Committee of 8"), ("auto", "Committee of ")):
        page.put("#samples", value)
        page.wait(f"document.querySelector('#members').textContent.startsWith('{sentence}')")
        page.settle()
        unknown = page.text("#p-value").startswith("No p-value")
        assert unknown == (value == "8")


def test_a_key_is_asked_for_first(page: Page, serve: Callable, numbers_checkpoint: Path) -> None:
    given = Settings(models=(str(numbers_checkpoint),), torch_threads=1, api_keys=f"infer:{KEY}")  # type: ignore[arg-type]
    with serve(given) as url:
        page.visit(f"{url}/")
        page.wait("!document.querySelector('#access').hidden && document.activeElement.id === 'key'")
        assert page.run("document.querySelector('#main').hidden")
        page.write("another-secret-0123456789")
        page.press("Enter")
        page.wait("!document.querySelector('#key-problem').hidden")
        assert page.text("#key-problem").startswith("Unauthorized: ")
        page.write(KEY)
        page.press("Enter")
        page.wait("!document.querySelector('#main').hidden")
        page.settle()
        page.click("#copy-curl")
        page.wait("document.querySelector('#copied').textContent.includes('Set KEY')")
        snippet = page.run("document.querySelector('#snippet').textContent")
        assert KEY not in snippet
        done = subprocess.run(
            ["sh", "-c", snippet], capture_output=True, text=True, env={"KEY": KEY, "PATH": "/usr/bin:/bin"}
        )
        assert json.loads(done.stdout)["predictions"]
    page.run("sessionStorage.clear()")
    page.complaints.clear()


def test_about_says_what_was_promised_and_when(page: Page, page_url: str, checkpoint: Path) -> None:
    page.visit(f"{page_url}/")
    page.settle()
    about = page.text("#about")
    promise = load(checkpoint).describe()["calibration"]["promise"]
    assert promise in about
    assert not re.search(r"\d\.\d{5}", about)  # rates such as .2799999
    assert re.search(r"Calibrated on\s+.*2026", about)


def test_the_whole_page_is_small(page: Page, page_url: str) -> None:
    page.visit(f"{page_url}/")
    page.settle()
    sizes = page.run(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".map((each) => [each.name, each.transferSize])"
    )
    assert all(name.startswith(page_url) for name, _ in sizes)
    assert 20_000 < sum(size for _, size in sizes) < 200_000
