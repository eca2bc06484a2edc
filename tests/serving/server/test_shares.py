from __future__ import annotations

from pathlib import Path

from serving.server.shares import Shares


def test_a_worker_is_ahead_of_whoever_has_fewer(tmp_path: Path) -> None:
    one, other, third = (Shares(tmp_path, 3, number) for number in range(3))
    assert not one.is_ahead(5)  # nobody else is there
    one.show(2)
    other.show(1)
    assert one.is_ahead(2)
    assert not other.is_ahead(1)
    assert third.is_ahead(2)
    other.leave()
    assert not one.is_ahead(2)


def test_the_place_of_a_worker_that_starts_anew_is_away(tmp_path: Path) -> None:
    one, other = Shares(tmp_path, 2, 0), Shares(tmp_path, 2, 1)
    other.show(0)
    assert one.is_ahead(1)
    Shares(tmp_path, 2, 1)
    assert not one.is_ahead(1)
