"""Every error of the engine is one family, named for what is wrong and drawn in the docstring."""

from __future__ import annotations

import inspect

from dubio.uncertainty import errors


def test_every_error_is_a_value_error_of_one_family_and_drawn():
    family = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    assert len(family) > 5
    for kind in family:
        assert issubclass(kind, errors.UncertaintyError)
        assert issubclass(kind, ValueError)
        assert kind.__name__ in (errors.__doc__ or "")
        assert kind.__doc__
