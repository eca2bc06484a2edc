from __future__ import annotations

import inspect
import subprocess
import sys

from dubio.serving import errors


def test_the_errors_know_no_http() -> None:
    code = "import sys, dubio.serving.errors; print(*{'torch', 'fastapi', 'starlette', 'uvicorn'} & set(sys.modules))"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.split() == []


def test_one_family_can_be_caught_at_once_and_each_error_says_when_it_is_raised() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert [kind.__name__ for kind in kinds if not issubclass(kind, errors.ServingError)] == []
    assert [kind.__name__ for kind in kinds if not kind.__dict__.get("__doc__")] == []
