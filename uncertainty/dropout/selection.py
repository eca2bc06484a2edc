"""Selection: which sites are sampled, and at which rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from dubio.uncertainty.errors import UnsupportedSite


@dataclass(frozen=True)
class Selection:
    """What the user chose; by default every site at the rate that it was trained with.

    A pattern is the name of a site; if there is none of that name, a kind, or a shell pattern such as ``head.*``.

    Attributes:
        sites: Patterns of the sites to sample; None for all.
        rates: Rates in (0, 1] by pattern; the first that matches a site counts, a name before all others.
    """

    sites: tuple[str, ...] | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sites is not None and not self.sites:
            raise UnsupportedSite("Expected `sites` to name at least one dropout site, but got none; leave it out.")
        for pattern, p in self.rates.items():
            if not 0 < p <= 1:
                raise UnsupportedSite(
                    f"Expected `rates` to be in (0, 1], but got {p} for {pattern!r}; leave a site out by `sites`."
                )

    def selected(self, kinds: Mapping[str, str]) -> set[str]:
        """The names of the sites to sample.

        Args:
            kinds: The kind of each site, by name.

        Raises:
            UnsupportedSite: A pattern matches no site, which is most likely a mistake.
        """
        if self.sites is None:
            return set(kinds)
        return set().union(*(_matching(pattern, kinds, "sites") for pattern in self.sites))

    def overridden(self, kinds: Mapping[str, str]) -> dict[str, float]:
        """The rates that differ from those of the training, by name; arguments and errors as `selected`."""
        rates: dict[str, float] = {}
        for pattern in sorted(self.rates, key=lambda pattern: pattern not in kinds):
            for name in _matching(pattern, kinds, "rates"):
                rates.setdefault(name, float(self.rates[pattern]))
        return rates


def _matching(pattern: str, kinds: Mapping[str, str], option: str) -> set[str]:
    if pattern in kinds:
        return {pattern}
    names = {name for name, kind in kinds.items() if kind == pattern or fnmatchcase(name, pattern)}
    if not names:
        known = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise UnsupportedSite(
            f"Expected every pattern in `{option}` to match a dropout site, but {pattern!r} matches none of: {known}."
        )
    return names
