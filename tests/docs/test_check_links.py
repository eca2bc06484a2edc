from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CHECKER = runpy.run_path(str(ROOT / "docs" / "check_links.py"))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "api.md").write_text("# The API\n\n## Errors & answers\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_api.py").write_text("def test_answers():\n    pass\n")
    return tmp_path


def _problems(site: Path, text: str) -> list[str]:
    page = site / "README.md"
    page.write_text(text)
    return list(CHECKER["problems"](page, site))


@pytest.mark.parametrize(
    "text",
    [
        "[the API](docs/api.md), [errors](docs/api.md#errors--answers) and [elsewhere](https://example.org/docs/none.md)",
        "# Top\n[up](#top)",
        "`docs/api.md` and `tests/test_api.py::test_answers`",
        "```\npytest tests/test_api.py\n```",
        "training/serving, `runs/digits_mlp/model.ckpt` and `configs/<name>.yaml` are not in the repository",
    ],
)
def test_what_exists_is_accepted(site: Path, text: str):
    assert _problems(site, text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[gone](docs/gone.md)", "the link 'docs/gone.md' leads nowhere"),
        ("[gone](docs/api.md#gone)", "the link 'docs/api.md#gone' leads to a heading that does not exist"),
        ("`configs/gone.yaml`.", "the path 'configs/gone.yaml' does not exist"),
        (
            "```\ndubio-train fit --config configs/gone.yaml\n```",
            "the path 'configs/gone.yaml' does not exist",
        ),
        ("`tests/test_api.py::test_gone`", "the test 'tests/test_api.py::test_gone' does not exist"),
        ("`test_api.py::test_answers`", "the test 'test_api.py::test_answers' is named without its folder"),
    ],
)
def test_what_is_missing_is_named(site: Path, text: str, problem: str):
    assert problem in _problems(site, text)


def test_the_command_fails_when_something_is_missing(site: Path, capsys: pytest.CaptureFixture[str]):
    (site / "README.md").write_text("[gone](gone.md)")
    assert CHECKER["main"](site) == 1
    assert capsys.readouterr().out == "README.md: the link 'gone.md' leads nowhere\n"
