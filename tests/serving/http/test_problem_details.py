from __future__ import annotations

import inspect

import dubio.models.errors
import dubio.serving.errors
import dubio.uncertainty.errors
from dubio.serving.http.problem_details import TABLE


def test_every_domain_error_has_a_status() -> None:
    for module in (dubio.models.errors, dubio.serving.errors, dubio.uncertainty.errors):
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Exception):
                assert any(base in TABLE for base in kind.__mro__[:-2]), kind


def test_what_the_caller_can_mend_is_a_4xx() -> None:
    kinds = [kind for _, kind in inspect.getmembers(dubio.serving.errors, inspect.isclass)]
    for kind in kinds:
        if issubclass(kind, dubio.serving.errors.RequestError) and kind is not dubio.serving.errors.RequestError:
            assert 400 <= TABLE[kind].status < 500
