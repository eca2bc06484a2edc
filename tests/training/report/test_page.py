"""The page loads nothing, shows every number, and takes names for text."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dubio.training.report import page
from tests.training.report.conftest import Written


class Parts(HTMLParser):
    """What a browser would load, and whether tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset", "style")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(written: Written) -> str:
    return (written.folder / "report.html").read_text()


def test_it_is_one_file_with_every_picture_in_it(written: Written, text: str):
    parts = Parts()
    parts.feed(text)
    assert parts.open == []
    assert not parts.tags & {"script", "link", "iframe", "object", "form"}
    pictures = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in parts.sources]
    files = [path.read_bytes() for path in written.folder.glob("*.png")]
    assert sorted(pictures) == sorted(files)
    assert all(each.startswith(b"\x89PNG") for each in pictures)
    assert "http" not in text
    assert "url(" not in text


def test_it_tells_what_report_json_holds(written: Written, text: str):
    content = written.content
    words = re.sub(r"<[^>]+>", " ", re.sub(r"base64,[\w+/=]*", "", text)).replace("\N{NO-BREAK SPACE}", " ")
    for name, answer in content.answers.items():
        nll = answer.after.nll
        assert f"{nll.value:.4f} ({nll.low:.4f} to {nll.high:.4f})" in words, name
        assert f"{answer.before.ece.value:.4f}" in words
    measured = content.promise.measured
    assert f"{measured.count} of {measured.rows}: {measured.rate:.1%}" in words
    assert f"it is {content.promise.resplits.due:.1%}" in words
    covered = content.label_sets.covered
    assert f"{covered.count} of {covered.rows}: {covered.rate:.1%}" in words
    for each in content.out_of_distribution:
        assert f"{each.auroc:.4f}" in words
    for sentence in (*content.not_promised, *content.monitoring.advice):
        assert page.escape(sentence) in words
    for each in content.new_version:
        assert f"{each.relation} {each.bound:.4g}" in words
    for rule in content.rules:
        assert page.escape(rule.number) in words


def test_names_are_text_and_no_markup(written: Written):
    numbers = json.loads((written.folder / "report.json").read_text())
    numbers["model"]["classes"][0] = numbers["answers"]["deterministic"]["by_class"][0]["name"] = "<script>x</script>"
    numbers["data"]["title"] = "a & <b>"
    written_again = page.render(numbers, {})
    assert "<script>" not in written_again
    assert "&lt;script&gt;x" in written_again
    assert "a &amp; &lt;b&gt;" in written_again


def test_of_many_classes_the_worst_are_shown(written: Written):
    numbers = json.loads((written.folder / "report.json").read_text())
    numbers["model"]["classes"] = [f"class {index}" for index in range(60)]
    numbers["promise"]["by_class"] *= 6
    numbers["label_sets"] = None
    for answer in numbers["answers"].values():
        answer["by_class"] *= 6
    numbers["answers"]["MC dropout"]["by_class"] = [
        json.loads(json.dumps(each)) for each in numbers["answers"]["MC dropout"]["by_class"]
    ]
    for index, each in enumerate(numbers["answers"]["MC dropout"]["by_class"]):
        each["figures"]["accuracy"]["value"] = 1 - index / 100
    text = page.render(numbers, {})
    assert "The 50 of 60 classes with the lowest accuracy" in text
    rows = re.findall(r"<td>(class \d+)</td>", text)
    assert rows == 2 * [f"class {index}" for index in range(59, 9, -1)]  # for each answer


def test_a_promise_that_is_refuted_is_told_loudly(written: Written):
    numbers = json.loads((written.folder / "report.json").read_text())
    numbers["promise"]["consistent"] = False
    assert "REFUTES it" in page.render(numbers, {})
    assert "REFUTES it" not in (written.folder / "report.html").read_text()


def test_it_is_made_for_small_and_dark_screens(text: str):
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "@media (prefers-color-scheme: dark)" in text
    assert text.count("<table") == text.count('<div class="wide"><table')  # which scrolls by itself


def test_the_reports_of_the_documentation_are_what_is_written_today(text: str):
    found = sorted((Path(__file__).parents[3] / "docs" / "reports").glob("*.html"))
    assert [path.stem for path in found] == ["clinc150", "digits_mlp", "fashion_mnist_convnet", "table_mlp"]
    for path in found:
        kept = path.read_text(encoding="utf-8")
        for part in (r"<h2>.*?</h2>", r"<style>.*?</style>"):
            assert re.findall(part, kept, re.DOTALL) == re.findall(part, text, re.DOTALL)
        assert ("no promise" in kept) == (path.stem == "table_mlp")  # at the smaller of two risks
        assert "of the accepted answers are wrong" in kept
        assert "REFUTES" not in kept
    assert sum(path.stat().st_size for path in found) < 1_500_000
