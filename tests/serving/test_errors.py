"""Every error of the service is one family, drawn in the docstring, and has its line in the table of statuses."""

from __future__ import annotations

import inspect

import pytest

from dubio.serving import errors
from dubio.serving.http import problem_details

FAMILY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_and_has_a_status(kind):
    assert issubclass(kind, errors.ServingError)
    assert kind.__name__ in (errors.__doc__ or "")
    assert kind.__doc__
    case = next(problem_details.TABLE[base] for base in kind.__mro__ if base in problem_details.TABLE)
    if issubclass(kind, errors.RequestError) and kind is not errors.RequestError:
        assert 400 <= case.status < 500  # the caller's doing, by name


def test_an_overload_says_when_to_come_again():
    assert errors.Overloaded("full", retry_after=3).retry_after == 3
