"""Names: how what stands in a file or in a request is read as one, the same in both."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Literal

# A whole number as other programs write it: 3, +3, and 3.0 where a column had holes.
_WHOLE = re.compile(r"[+-]?\d+(\.0+)?", re.ASCII)
_INVISIBLE = {"Cc", "Cf"}  # control and format characters, such as the zero-width space
_SELECTORS = range(0xFE00, 0xFE10)  # which choose the form of the character before


# Marks on one character: more than any language puts there (Unicode's Stream-Safe Text Format, UAX #15).
_MARKS = 30


def tidy(text: str) -> str:
    """The text without blanks and invisible characters around it, in Unicode's form NFC."""
    if text.isascii():
        return text.strip()
    text = _normalize("NFC", text)
    visible = [index for index, character in enumerate(text) if not (character.isspace() or _is_invisible(character))]
    return text[visible[0] : visible[-1] + 1] if visible else ""


def category(value: object) -> str | None:
    """The name that a value stands for; None if it stands for none.

    Texts are tidied; True and true are one name, and so are the number 1, 1.0 and the text "1.0". Zeros in front are
    part of a name.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 2**63 else None
    if isinstance(value, float):
        return repr(value) if value == value and abs(value) != float("inf") else None
    if not isinstance(value, str):
        return None
    name = tidy(value)
    if name[:1] in "tTfF" and name.casefold() in ("true", "false"):
        return name.casefold()
    return name.partition(".")[0].removeprefix("+") if _WHOLE.fullmatch(name) else name or None


def look(name: str) -> str:
    """What a reader sees of a name: names that look the same, but for capitals and kinds of blanks, give the same."""
    if not name.isascii():
        name = _normalize("NFKC", "".join(each for each in name if not _is_invisible(each)))
    return " ".join(name.casefold().split())


def say_value(value: object) -> str:
    """A value of a request in a few words, as whoever sent it in JSON, from any language, knows it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"the text {value[:40]!r}" + (" (cut)" if len(value) > 40 else "")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int | float):
        return f"the number {value:.6g}" if abs(value) < 2**1000 else "a number that no float can hold"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"a value of Python's type {type(value).__name__}"  # which JSON does not have


def _normalize(form: Literal["NFC", "NFKC"], text: str) -> str:
    """The text in a form of Unicode's, or as it is if it piles up marks: Python takes the square of their number."""
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > _MARKS:
            return text
    return unicodedata.normalize(form, text)


def _is_invisible(character: str) -> bool:
    return not character.isspace() and (unicodedata.category(character) in _INVISIBLE or ord(character) in _SELECTORS)
