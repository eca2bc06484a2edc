"""What wheel and sdist hold."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, Built, call

FOLDERS = ("configs", "models", "scale", "serving", "training", "uncertainty")


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_wheel_holds_the_folders_as_parts_of_dubio_and_nothing_else(built: Built):
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    parts = {f"dubio/{name}" for folder in FOLDERS for name in _files(ROOT / folder)}
    assert names == parts | {"dubio/__init__.py", "dubio/py.typed"}
    assert {"dubio/configs/digits_mlp.yaml", "dubio/configs/recipes/max_norm.yaml", "dubio/models/py.typed"} <= names


def test_a_wheel_from_the_sdist_is_the_same_to_the_byte(built: Built):
    assert built.rebuilt.read_bytes() == built.wheel.read_bytes()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what belongs to the project is asked of git")
def test_an_sdist_holds_every_file_of_the_project_once(built: Built):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    project = {name for name in listed if (ROOT / name).is_file() and not name.startswith(".ci/")}
    with tarfile.open(built.sdist) as archive:
        members = archive.getmembers()
    names = [member.name.partition("/")[2] for member in members]
    assert sorted(names) == sorted(project | {"PKG-INFO"})
    assert all(member.isfile() for member in members)


@pytest.mark.slow
def test_an_unpacked_sdist_runs_as_it_is(built: Built):
    code = "from dubio.training.cli import configs; print(configs.__file__, *configs.names())"
    file, *names = call(sys.executable, "-c", code, cwd=built.unpacked).stdout.split()
    assert Path(file) == built.unpacked / "training" / "cli" / "configs.py"
    assert {"digits_mlp", "recipes/max_norm"} <= set(names)


def test_a_checkout_runs_without_being_installed(tmp_path: Path):
    # -S: no site-packages, where this checkout is installed; what is imported needs none of them.
    code = "import dubio; print(dubio.__path__); import dubio.uncertainty.errors"
    ran = call(sys.executable, "-S", "-c", code, cwd=ROOT)
    assert ran.stdout.strip() == str([str(ROOT / "dubio")])
    assert "No module named 'torch'" in ran.stderr  # found, and only torch is missing


@pytest.mark.parametrize("name", ["models", "scale", "serving", "training", "uncertainty", "configs"])
def test_the_folders_are_not_importable_by_their_bare_names(name: str, tmp_path: Path):
    code = f"import importlib.util as u; print(u.find_spec('dubio') is not None, u.find_spec({name!r}))"
    assert call(sys.executable, "-c", code, cwd=tmp_path).stdout.split() == ["True", "None"]
