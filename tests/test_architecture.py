"""The shape of the code: which way imports go, what each part loads, how large files are, what has tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import grimp
import networkx
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("uncertainty", "models", "training", "serving", "scale")
# Alembic's own layout has a folder of versions; a test of the database runs them all.
MIGRATIONS = ROOT / "serving" / "store" / "migrations"
MODULES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if MIGRATIONS not in path.parents
)

LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"
TRAINING = {"pytorch_lightning", "lightning", "jsonargparse", "sklearn", "tensorboard", "pooch"}
WEB = {"fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic_settings"}


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)


def _names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def imports() -> set[tuple[str, str]]:
    """Every import of one module of ours by another, also those for type checking alone and those inside functions."""
    graph = grimp.build_graph("dubio", cache_dir=None)
    return {(module, each) for module in graph.modules for each in graph.find_modules_directly_imported_by(module)}


def test_imports_keep_the_contracts():
    outcome = _run("-c", LINT_IMPORTS, "--no-cache", "--no-logo")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_no_module_takes_part_in_an_import_cycle():
    # The contract compares siblings only; this sees any cycle, also one through a package's __init__.
    graph = grimp.build_graph("dubio", cache_dir=None, exclude_type_checking_imports=True)
    imports = networkx.DiGraph()
    for module in graph.modules:
        imports.add_edges_from((module, target) for target in graph.find_modules_directly_imported_by(module))
    cycles = [sorted(component) for component in networkx.strongly_connected_components(imports) if len(component) > 1]
    assert cycles == []


def test_no_two_modules_import_each_other(imports: set[tuple[str, str]]):
    assert [pair for pair in sorted(imports) if pair[::-1] in imports] == []


def test_few_arrows_run_between_the_parts_of_uncertainty(imports: set[tuple[str, str]]):
    home = "dubio.uncertainty."
    # A part is a folder or a file at the top: the package itself, which only says what is public, is none.
    inside = [pair for pair in imports if all(module.startswith(home) for module in pair)]
    parts = {tuple(module.removeprefix(home).split(".")[0] for module in pair) for pair in inside}
    arrows = {(source, target) for source, target in parts if source != target}
    assert {source for source, _ in arrows} == {"committee", "report", "execution", "dropout", "detection"}
    assert len(arrows) <= 15, sorted(arrows)


@pytest.mark.parametrize(
    "modules",
    [
        {
            "dubio.uncertainty": TRAINING | WEB | {"pydantic"},
            "dubio.models": TRAINING | WEB,
            "dubio.scale.cli": TRAINING | WEB,
            "dubio.serving.cli": TRAINING,
            "dubio.serving.app": TRAINING,
        },
        {"dubio.training.cli": WEB},
    ],
    ids=["serving", "training"],
)
def test_importing_a_module_loads_no_library_it_must_do_without(modules: dict[str, set[str]]):
    # A fresh interpreter: here, other tests have imported everything already. The contracts see
    # the code's own imports only; this sees what libraries drag in as well. One after the other, as torch takes long.
    each = "; ".join(
        f"import {module}; print('{module}', *sorted({forbidden!r} & set(sys.modules)))"
        for module, forbidden in modules.items()
    )
    outcome = _run("-c", f"import sys; {each}")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.splitlines() == list(modules)


def test_no_module_is_longer_than_400_lines():
    assert _names([path for path in MODULES if _lines(path) > 400]) == []


def test_half_of_the_modules_are_at_most_120_lines_long():
    assert sorted(map(_lines, MODULES))[len(MODULES) // 2] <= 120


def test_folders_are_at_most_two_deep():
    assert _names([path for path in MODULES if len(path.relative_to(ROOT).parts) > 3]) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed(package: str):
    assert (ROOT / package / "py.typed").is_file()


def test_each_module_has_a_test_file_at_the_same_place():
    # A small one may be tested in its neighbour's file.
    substantial = [path for path in MODULES if not path.stem.startswith("__") and _lines(path) >= 40]
    places = {path: (ROOT / "tests" / path.relative_to(ROOT)).with_name(f"test_{path.name}") for path in substantial}
    assert _names([path for path, place in places.items() if not place.is_file()]) == []


@pytest.mark.parametrize("name", [*PACKAGES, "configs"])
def test_the_parts_of_dubio_are_relative_links_to_the_folders(name: str):
    link = ROOT / "dubio" / name
    assert link.readlink() == Path("..") / name
    assert link.resolve() == ROOT / name


def test_an_install_takes_no_other_name_than_dubio(tmp_path: Path):
    # Elsewhere than in the checkout, a user's own folders may have these names.
    look = f"from importlib.util import find_spec; print([name for name in {PACKAGES!r} if find_spec(name)])"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    outcome = subprocess.run(
        [sys.executable, "-c", f"import dubio; {look}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "[]\n"


def test_test_folders_have_no_init():
    # With one, pytest would import tests/training as the package `training` and hide the real one.
    assert _names(list((ROOT / "tests").rglob("__init__.py"))) == []
