"""`make mutants` knows the tests of each file, and tells a change that tests notice from one that they do not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.mutants import ROOT, own_tests, targets


def test_each_file_has_its_own_tests():
    files = targets()
    assert len(files) == len(set(files)) > 20
    for file in files:
        assert (ROOT / file).is_file()
        assert all((ROOT / test).is_file() for test in own_tests(file))
    assert own_tests("models/loading.py") == ["tests/models/test_loading.py", "tests/models/test_loading_refuses.py"]


def test_a_file_without_tests_is_refused():
    with pytest.raises(SystemExit, match=r"has no tests/models/test_nothing\.py"):
        own_tests("models/nothing.py")


@pytest.mark.slow
def test_what_tests_notice_is_told_from_what_they_do_not():
    command = [sys.executable, "tests/mutants.py", "uncertainty/detection/conformal.py", "--sample", "3", "--seed", "0"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert "3 of 3 killed" in ran.stdout, ran.stdout + ran.stderr
    assert ran.returncode == 0
