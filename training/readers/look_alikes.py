"""Names that a reader takes for one and a program for two."""

from __future__ import annotations

from collections.abc import Mapping

from dubio.models.inputs.names import category, look
from dubio.training.errors import UnreadableData


def refuse_look_alikes(rule: str, where: Mapping[str, str], what: str, cure: str) -> None:
    """Refuses names that differ in capitals, blanks, invisible characters or Unicode's forms alone.

    Args:
        rule: Begins the message: what is expected.
        where: Each name as it is written, and where.
        what: Is named.
        cure: What to do.

    Raises:
        UnreadableData: Names the first two.
    """
    seen: dict[str, str] = {}
    for name in where:
        first = seen.setdefault(look(category(name) or name), name)
        if first != name:
            raise UnreadableData(
                f"{rule} have names that a reader can tell apart, but {where[first]} has the {what} {first[:40]!a} and "
                f"{where[name]} has {name[:40]!a}; {cure}."
            )
