"""The errors of the engine: the drawing in the docstring is the family."""

from __future__ import annotations

import re

from dubio.uncertainty import errors


def test_the_drawing_shows_the_whole_family():
    drawn = re.findall(r"^\|- (\w+) ", errors.__doc__ or "", re.MULTILINE)
    family = [kind for kind in errors.UncertaintyError.__subclasses__() if kind.__module__ == errors.__name__]
    assert sorted(drawn) == sorted(kind.__name__ for kind in family)
    # Whoever knows nothing of this package sees a wrong value.
    assert issubclass(errors.UncertaintyError, ValueError)
