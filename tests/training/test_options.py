from __future__ import annotations

import shlex

import pytest
from jsonargparse import ArgumentParser

from dubio.training.options import named, typed, typed_list


def given(cure: str) -> list[str]:
    """What a program gets of a cure that is typed into a shell."""
    return shlex.split(cure.strip("`"))


NAMES = ["nr", "patient id", "no", "null", "1", "1.5", "2026-01-01", "a, b", "it's", "[x", 'say "x"', "a: b", "Größe"]


@pytest.mark.parametrize("name", [*NAMES, "#", "-", "~", "&x", "$HOME", "a\\b", "trailing "])
def test_what_is_to_be_typed_means_the_column(name: str):
    parser = ArgumentParser()
    parser.add_argument("--data.ignore", type=tuple[str, ...])
    assert parser.parse_args(given(typed_list("ignore", [name]))).data.ignore == (name,)
    assert parser.parse_args(given(typed_list("ignore", [*NAMES, name, *NAMES]))).data.ignore == tuple(
        dict.fromkeys([*NAMES, name])
    )


def test_a_name_without_need_has_no_quotes():
    assert typed("group", "patient") == "`--data.group patient`"
    assert typed("group", "patient id") == "`--data.group 'patient id'`"
    assert typed_list("ignore", ["nr", "patient id"]) == "`--data.ignore '[nr, patient id]'`"
    assert named("path") == "`--data.path` (`data.init_args.path` in a configuration)"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "null"])
def test_one_name_is_taken_as_it_is(name: str):
    parser = ArgumentParser()
    parser.add_argument("--data.group", type=str | None)
    assert parser.parse_args(given(typed("group", name))).data.group == name
