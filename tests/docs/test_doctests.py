"""The examples in docstrings of what is public give what they say, in a folder where a model was trained."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

FACES = [import_module(name) for name in ("dubio", "dubio.models", "dubio.uncertainty", "dubio.training")]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# What a reader meets first shows how it is used.
SHOWN = {"dubio"}


def _examples() -> dict[str, doctest.DocTest]:
    """The examples of the public modules, classes and functions, and of the methods in these, by public name."""
    tests = [test for face in FACES for test in doctest.DocTestFinder(recurse=False).find(face, face.__name__)]
    public = {id(thing): (name, thing) for face in reversed(FACES) for name, thing in _exports(face)}
    for name, thing in public.values():
        if isinstance(thing, type) or inspect.isfunction(thing):
            tests += doctest.DocTestFinder().find(thing, name)
    return {test.name: test for test in tests if test.examples}


def _exports(face: ModuleType) -> list[tuple[str, object]]:
    return [(f"{face.__name__}.{name}", getattr(face, name)) for name in face.__all__]


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
