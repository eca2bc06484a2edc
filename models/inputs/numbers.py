"""Numbers as texts write them, the same in a file and in a data frame."""

from __future__ import annotations

import re


def pattern(decimal: str = ".", between: str = "") -> str:
    """What a whole text is that is read as a number, to Python's regular expressions and to those of polars.

    Args:
        decimal: Sign before the part of a number that is smaller than 1.
        between: Expression for what may stand between each three digits of a large number; by default nothing may.
    """
    decimal = re.escape(decimal)
    groups = f"[0-9]{{1,3}}(?:{between}[0-9]{{3}})+|" if between else ""
    return (
        rf"^(?:[+-]?(?:(?:{groups}[0-9]+)(?:{decimal}[0-9]*)?|{decimal}[0-9]+)(?:[eE][+-]?[0-9]+)?"
        r"|(?i:[+-]?(?:nan|inf|infinity)))$"
    )


_NUMBERS = {decimal: re.compile(pattern(decimal)) for decimal in ".,"}


def read(text: str, decimal: str = ".") -> float | None:
    """The number that a text is, blanks around it left aside; NaN in any spelling is NaN.

    Args:
        text: To read.
        decimal: As `pattern`; a point or a comma.

    Returns:
        None for a text that is none.
    """
    text = text.strip()
    return float(text.replace(decimal, ".")) if _NUMBERS[decimal].fullmatch(text) else None
