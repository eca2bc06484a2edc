"""The locks hold what is needed, in the tested versions, with hashes, and nothing is installed past them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "requirements").glob("*.txt"))}
OWN = ("build", "dev", "release", "serve", "train")  # the sets that constraints.txt rules
NOT_LOCKED = {"torch"}  # which build of torch there is depends on the machine


def _pins(text: str) -> dict[str, str]:
    return {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, flags=re.MULTILINE)
    }


TESTED = _pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))


def _needed(*wanted: str) -> set[str]:
    """Whatever this environment needs for these requirements, as the packages themselves say."""
    found: set[tuple[str, str]] = set()
    left = [(each.name, extra) for each in map(Requirement, wanted) for extra in {"", *each.extras}]
    while left:
        name, extra = left.pop()
        if (canonicalize_name(name), extra) in found:
            continue
        found.add((canonicalize_name(name), extra))
        for requirement in map(Requirement, distribution(name).requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                left += [(requirement.name, each) for each in {"", *requirement.extras}]
    return {name for name, _extra in found}


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("serve", ["serve", "postgres", "grpc"]),
        ("train", ["train"]),
        ("dev", ["train", "serve", "dev"]),
        ("build", None),
    ],
)
def test_a_lock_holds_all_that_is_needed(name: str, extras: list[str] | None):
    if extras is None:
        wanted = [*PROJECT["build-system"]["requires"], "editables"]
    else:
        project = PROJECT["project"]
        wanted = project["dependencies"] + [line for each in extras for line in project["optional-dependencies"][each]]
    assert sorted(_needed(*wanted) - NOT_LOCKED - set(_pins(LOCKS[name]))) == [], "run `make lock`"


@pytest.mark.parametrize("name", OWN)
def test_a_lock_has_the_tested_versions(name: str):
    pins = _pins(LOCKS[name])
    assert pins
    untested = {package: version for package, version in pins.items() if TESTED.get(package, version) != version}
    assert untested == {}, "run `make lock`"


@pytest.mark.parametrize("name", ["build", "dev", "serve", "train"])
def test_what_is_locked_for_use_is_tested(name: str):
    assert sorted(set(_pins(LOCKS[name])) - set(TESTED)) == [], "constraints.txt has to pin it"


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_each_locked_package_has_hashes_and_no_address(name: str):
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", LOCKS[name], flags=re.MULTILINE).strip())
    assert len(entries) == len(_pins(LOCKS[name]))
    assert [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry)] == []
    assert "://" not in LOCKS[name]


def test_pip_refuses_a_file_that_is_not_the_locked_one(tmp_path: Path):
    """A wheel of the locked name and version, but other content, as an index that was broken into would have."""
    source = tmp_path / "source"
    (source / "editables").mkdir(parents=True)
    (source / "editables" / "__init__.py").touch()
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "editables"\nversion = "0.6"\n'
    )
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    built = subprocess.run(build, cwd=source, capture_output=True)
    assert built.returncode == 0, built.stderr
    (tmp_path / "lock.txt").write_text(re.search(r"^editables==0\.6 .*(\n    .*)*\n", LOCKS["build"], re.MULTILINE)[0])
    install = [
        sys.executable,
        "-m",
        "pip",
        "--isolated",
        "install",
        "--no-index",
        "--find-links",
        ".",
        "--target",
        "out",
    ]
    flags = ["--only-binary", ":all:", "--no-deps", "--require-hashes", "-r", "lock.txt"]
    ran = subprocess.run([*install, *flags], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in ran.stderr
    assert not (tmp_path / "out" / "editables").exists()


def _installs(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [" ".join(call.split()) for call in re.findall(r"pip\"? (?:install|wheel) ([^&|\n#]*)", joined)]


@pytest.mark.parametrize("path", ["Makefile", ".ci/tools", "docker/serve.Dockerfile", "docker/train.Dockerfile"])
def test_whatever_is_installed_is_locked_except_torch_and_dubio(path: str):
    installs = _installs((ROOT / path).read_text(encoding="utf-8"))
    assert installs
    for call in installs:
        locked = "--only-binary :all: --no-deps --require-hashes -r requirements/" in call
        torch = call.endswith("-c constraints.txt torch")
        own = "--no-deps" in call and ("--no-build-isolation" in call or "--no-index" in call)
        assert locked or torch or own, call
        assert not locked or set(re.findall(r"requirements/(\w+)\.txt", call)) <= set(LOCKS), call


@pytest.mark.parametrize("name", ["serve", "train"])
def test_each_image_has_its_own_lock_and_a_base_that_can_be_pinned(name: str):
    text = (ROOT / "docker" / f"{name}.Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"requirements/(\w+)\.txt", text)) == {"build", name}
    assert re.findall(r"^FROM (\S+)", text, flags=re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert "\nARG BASE=python:3.12-slim\n" in text.partition("FROM")[0] + "\n"
