"""A user's mistake, told in one line."""

from __future__ import annotations

import re

# What jsonargparse says around the fact: how it searched, and dumps of whole configurations.
_PADDING = (
    "Does not validate against any of the Union subtypes",
    "Subtypes:",
    "Errors:",
    "Given value type:",
    "Given value: Namespace(",
    "Given value: NestedArg(",
    # "or nothing at all" is an alternative that no user meant.
    "- Expected a <class 'NoneType'>",
)


# How the network's sizes are looked up in the data; what failed is the data.
_LOOKUP = re.compile(r"^Call to compute_fn of link .*? failed: ")


def one_line(error: BaseException) -> str:
    """The message of an error on one line, without what jsonargparse pads its messages with."""
    lines = [line.strip() for line in str(error).splitlines()]
    facts = [line.removeprefix("- ") for line in lines if line and not line.startswith(_PADDING)]
    return _LOOKUP.sub("", " ".join(facts)) or type(error).__name__
