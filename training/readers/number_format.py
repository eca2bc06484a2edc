"""How numbers are written in a file: their decimal sign, what stands between thousands, what only looks like one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import polars as pl

from dubio.models.inputs.numbers import pattern
from dubio.training.errors import TrainingError

_DIGITS = r"[0-9](?:[0-9.,'’_\s]*[0-9])?[.,]?"
_DATE = (
    r"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}(?:[T ,].*)?|[0-9]{1,2}:[0-9]{2}.*"
    r"|[0-9]{1,2}[ -][A-Za-z]{3,9}\.?[ ,-]+[0-9]{2,4}|[A-Za-z]{3,9}\.? [0-9]{1,2}, ?[0-9]{4}"
)
_MEASURED = (
    rf"(?:[\p{{Sc}}<>≤≥~≈=(]+|USD|EUR|GBP|CHF|JPY|CNY|INR)?\s?[+\-−]?\s?\p{{Sc}}?\s?[.,]?{_DIGITS}"
    r"\s?(?:[%‰)\p{Sc}]|[A-Za-zµμ°Ω²³/]{1,5})?"
)
_DATES = rf"^(?:{_DATE})$"
_LIKE = rf"^(?:{_DATE}|{_MEASURED}|0x[0-9a-fA-F]+)$"
_BLANK = "[ \u00a0\u2009\u202f]"  # those that typesetters put between thousands
_WHOLE = r"^[+-]?[0-9]+$"


@dataclass(frozen=True)
class NumberFormat:
    """Reads the numbers of a file of texts.

    Attributes:
        decimal: Before the part of a number that is smaller than 1.
        thousands: Between each three digits of a large number; None for nothing.

    Raises:
        TrainingError: If one of them is no single sign, or both are the same.
    """

    decimal: str = "."
    thousands: str | None = None

    def __post_init__(self) -> None:
        for name, sign in (("decimal", self.decimal), ("thousands", self.thousands)):
            if sign is not None and (len(sign) != 1 or sign.isalnum() or sign in '+-"\r\n'):
                raise TrainingError(
                    f"Expected `data.init_args.{name}` to be one sign such as ',' or '.', but got {sign!r}."
                )
        if self.decimal == self.thousands:
            raise TrainingError(
                "Expected `data.init_args.decimal` and `data.init_args.thousands` to differ, but both are "
                f"{self.decimal!r}."
            )

    def read(self, texts: pl.Series) -> pl.Series:
        """The numbers, null where a text is none; NaN in any spelling is NaN."""
        texts = texts.str.strip_chars()
        plain = texts.str.replace_all(self._between, "") if self.thousands else texts
        numbers = plain.str.replace(self.decimal, ".", literal=True).cast(pl.Float64, strict=False)
        return numbers.zip_with(texts.str.contains(self._pattern).fill_null(False), pl.Series([None], dtype=pl.Float64))

    def read_whole(self, texts: pl.Series) -> pl.Series | None:
        """The numbers as integers, if all of them are written so."""
        texts = texts.str.strip_chars()
        if not texts.str.contains(_WHOLE).all():
            return None
        whole = texts.str.strip_prefix("+").cast(pl.Int64, strict=False)
        return whole if whole.null_count() == texts.null_count() else None

    def resembles(self, texts: pl.Series) -> pl.Series:
        """Whether a text is a number, or looks like one to a reader: with a unit, a currency, a date."""
        return self.read(texts).is_not_null() | texts.str.strip_chars().str.contains(_LIKE)

    def dates(self, texts: pl.Series) -> pl.Series:
        """Whether a text is a date, or a time of day, and no number."""
        return (self.read(texts).is_null() & texts.str.strip_chars().str.contains(_DATES)).fill_null(False)

    def cure(self, text: str, texts: pl.Series, learned: bool = False) -> str:
        """What to do about a text that is no number.

        Args:
            text: That one.
            texts: All of its column.
            learned: Whether a checkpoint says already which texts stand for a missing value.
        """
        numbers = texts.filter(self.resembles(texts))
        fits = [other for other in _FORMATS if not other.read(numbers).null_count()]
        if fits and self.resembles(pl.Series([text]))[0]:
            changes = [other._changes(self) for other in fits]
            fewest = min(map(len, changes))
            alike = "" if self == NumberFormat() else ", or write the numbers of all columns alike"
            return f"set {' or '.join(' and '.join(each) for each in changes if len(each) == fewest)}{alike}"
        if any(character.isdigit() for character in text):
            return (
                f"write it as a plain number such as 3{self.decimal}5: strip its sign, unit or currency, which the "
                "name of the column can say"
            )
        if learned:
            return (
                "mend it; if it says that there is none, leave the cell empty, or fit again with it under "
                "`data.init_args.missing`"
            )
        return "mend it, or list it under `data.init_args.missing` if it says that there is none"

    def _changes(self, given: NumberFormat) -> list[str]:
        """Settings that make this format of a given one."""
        own, others = asdict(self), asdict(given)
        return [f"`data.init_args.{name}` to {own[name]!r}" for name in own if own[name] != others[name]]

    @property
    def _between(self) -> str:
        return _BLANK if self.thousands == " " else re.escape(self.thousands or "")

    @property
    def _pattern(self) -> str:
        return pattern(self.decimal, self._between if self.thousands else "")


def _formats() -> Iterator[NumberFormat]:
    for decimal, signs in ((".", (None, ",", "'", " ", "’", "_")), (",", (None, ".", "'", " ", "’"))):
        for thousands in signs:
            yield NumberFormat(decimal, thousands)


_FORMATS = tuple(_formats())
