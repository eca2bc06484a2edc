"""Wrong values: what a setting takes, instead of how the parser searched."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dubio.models.errors import nearest

# As jsonargparse words them, one for each type that a setting may have.
_EXPECTED = re.compile(
    r"Expected an? typing\.Literal\[(?P<literals>[^\]]*)\]|Expected an? `(?P<type>\w+)`"
    r"|Not of type (?P<restricted>\w+)|(?P<path>Unexpected import path format|Expected a dot import path string)"
)
_VALUE = re.compile(r"(?:Got|Given) value: (.*?)(?:\. Got value: .*| Given value: .*| Not a valid subclass.*)?$")

_LIST = "a list such as `[a, b]`"
_WORDS = {
    "bool": "`true` or `false`",
    "int": "a whole number",
    "PositiveInt": "a whole number above 0",
    "float": "a number",
    "str": "a text",
    "dict": "a mapping such as `{name: value}`",
    **dict.fromkeys(("list", "tuple", "set", "Sequence", "Iterable"), _LIST),
    "path": "the import path of a class",
}
NUMBERS = {_WORDS[name] for name in ("int", "PositiveInt", "float")}


def expected(text: str) -> list[str]:
    """What may stand where a value is wrong; each allowed word, and kinds of values in words.

    Args:
        text: What the parser says, on one line.
    """
    return list(dict.fromkeys(_alternatives(text.rsplit('Parser key "', 1)[-1])))


def explain(where: str, text: str) -> str | None:
    """That a setting does not take a value, and what it takes; None if this is not what is wrong.

    Args:
        where: The setting.
        text: What the parser says, on one line.
    """
    told, value = expected(text), _VALUE.search(text)
    if not told or not value:
        return None
    allowed = [each.strip("`") for each in told if re.fullmatch("`[^`]*`", each)]
    near = nearest(value[1], allowed)
    if near is None and told == [_LIST] and re.fullmatch(r"[\w.-]+", value[1]):
        near = f"[{value[1]}]"
    *first, last = told
    rule = f"{', '.join(first)} or {last}" if first else last
    return f"Expected `{where}` to be {rule}, but got `{value[1]}`{f'; did you mean `{near}`?' if near else '.'}"


def _alternatives(text: str) -> Iterator[str]:
    for each in _EXPECTED.finditer(text):
        if each["literals"] is not None:
            yield from (f"`{value}`" for value in ast.literal_eval(f"[{each['literals']}]"))
        else:
            name = "path" if each["path"] else each["type"] or each["restricted"]
            yield _WORDS.get(name, f"a `{name}`")
