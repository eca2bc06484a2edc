from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

PACKAGES = ["dubio.models", "dubio.training"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_listed(package: str):
    module = import_module(package)
    assert {*module.__all__} <= {*dir(module)}
    for name in module.__all__:
        value = getattr(module, name)
        assert value is vars(module)[name]  # and is kept
        home = getattr(value, "__module__", package)
        assert value is getattr(import_module(home), name, value)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_does_not_exist_is_told_as_of_any_module(package: str):
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Nothing'"):
        _ = import_module(package).Nothing
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec(f"from {package} import Nothing")


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_listed_before_anything_is_imported(package: str):
    program = f"import {package}, sys; print(*dir({package})); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    names, torch_is_there = said.splitlines()
    assert {*import_module(package).__all__, "__doc__", "__name__"} <= {*names.split()}
    assert torch_is_there == "False"
