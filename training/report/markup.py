"""Markup: the tables, lists and figures that the page is made of; everything in it is text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

Numbers = Mapping[str, Any]


def table(names: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Rows under the names of their columns; nothing without rows."""
    lines = list(lines)
    if not lines:
        return ""
    kind = "" if any(names) else ' class="facts"'
    head = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>" if any(names) else ""
    rows = "\n".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in line)}</tr>" for line in lines)
    return f'<div class="wide"><table{kind}>{head}\n{rows}\n</table></div>\n'


def listing(sentences: Sequence[str]) -> str:
    """Sentences, one a line."""
    return f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in sentences)}</ul>\n"


def interval(measured: Numbers, percent: bool = False, short: bool = False) -> str:
    """A figure with its interval."""
    form = ".2%" if percent else ".3f" if short else ".4f"
    return f"{measured['value']:{form}} ({measured['low']:{form}} to {measured['high']:{form}})"


def rate(rate: Numbers) -> str:
    """A share with its count and its interval."""
    return f"{rate['count']} of {rate['rows']}: {rate['rate']:.1%} ({rate['low']:.1%} to {rate['high']:.1%})"


def verdict(good: bool) -> str:
    """Whether a promise is kept."""
    return f'<span class="{"good" if good else "bad"}">{"Kept" if good else "Not kept"}</span>'


def some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _cell(cell: object) -> str:
    """An interval stays on one line."""
    return re.sub(r"\((\S+) to (\S+)\)$", "(\\1\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}\\2)", escape(str(cell)))
