"""The errors of training: the drawing in the docstring is the family."""

from __future__ import annotations

import re

from dubio.training import errors


def test_the_drawing_shows_the_whole_family():
    drawn = re.findall(r"^[│ ]*[├└]── (\w+) ", errors.__doc__ or "", re.MULTILINE)
    family = [value for value in vars(errors).values() if isinstance(value, type)]
    assert sorted(drawn) == sorted(kind.__name__ for kind in family)
    # Whoever knows nothing of this package sees a wrong value, or a warning of a user's own.
    assert all(issubclass(kind, UserWarning if kind is errors.DataWarning else ValueError) for kind in family)
