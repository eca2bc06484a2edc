"""The examples in docstrings of what is public give what they say, in a folder where a model was trained."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

FACES = [import_module(name) for name in ("dubio", "dubio.models", "dubio.uncertainty", "dubio.training")]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# What a reader meets first shows how it is used.
SHOWN = {"dubio"}


def _examples() -> dict[str, doctest.DocTest]:
    """The examples of the public modules, classes and functions, and of the methods in these, by public name."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples, seen = {}, set()
    for face in FACES:
        things = [(face.__name__, face), *((f"{face.__name__}.{name}", getattr(face, name)) for name in face.__all__)]
        for name, thing in things:
            if id(thing) in seen or not (isinstance(thing, type) or callable(thing) or thing is face):
                continue
            seen.add(id(thing))
            # Of a module, its own text alone: what it exports comes one by one.
            recursed = [finder.find(thing, name)] if thing is not face else [_own(face)]
            examples |= {test.name: test for tests in recursed for test in tests if test.examples}
    return examples


def _own(module: object) -> list[doctest.DocTest]:
    parsed = doctest.DocTestParser().get_doctest(module.__doc__ or "", {}, module.__name__, module.__file__, 0)
    return [parsed]


EXAMPLES = _examples()


def test_what_a_reader_meets_first_has_an_example():
    assert set(EXAMPLES) >= SHOWN


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_gives_what_it_says(name: str, runs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(runs)
    complaints: list[str] = []
    test = EXAMPLES[name]
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    outcome = runner.run(test, out=complaints.append, clear_globs=False)
    assert outcome.failed == 0, "".join(complaints)
    assert outcome.attempted == len(test.examples) > 0


def test_an_example_that_is_wrong_is_noticed():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=lambda _text: None).failed == 1
