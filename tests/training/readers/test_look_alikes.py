from __future__ import annotations

import pytest

from dubio.training.errors import UnreadableData
from dubio.training.readers.look_alikes import refuse_look_alikes


@pytest.mark.parametrize(
    ("first", "other"),
    [("a", "a "), ("No", "no"), ("Z\u00fcrich", "Zu\u0308rich"), ("a b", "a\u00a0b"), ("ab", "a\u200bb"), ("1", "1.0")],
)
def test_both_names_and_their_places_are_told(first: str, other: str):
    where = {"x": "line 2", first: "line 3", "y": "line 4", other: "line 9"}
    with pytest.raises(UnreadableData) as caught:
        refuse_look_alikes("f.csv: expected column 'c' to", where, "name", "write it one way")
    assert str(caught.value) == (
        "f.csv: expected column 'c' to have names that a reader can tell apart, but "
        f"line 3 has the name {first!a} and line 9 has {other!a}; write it one way."
    )


def test_names_that_differ_are_fine():
    refuse_look_alikes("", dict.fromkeys(["a", "b", "a b", "Zurich", "Z\u00fcrich", "10", "1"], "line 1"), "name", "")
