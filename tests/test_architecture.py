"""The shape of the code: which way imports go, what each part loads, how large files are, what has tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import networkx
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("uncertainty", "models", "training", "serving")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"
TRAINING = {"pytorch_lightning", "lightning", "jsonargparse", "sklearn", "tensorboard", "pooch"}
WEB = {"fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic_settings"}


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)


def _names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


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


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("dubio.uncertainty", TRAINING | WEB | {"pydantic"}),
        ("dubio.models", TRAINING | WEB),
        ("dubio.serving.app", TRAINING),
        ("dubio.serving.cli", TRAINING),
        ("dubio.training.cli", WEB),
    ],
)
def test_importing_a_module_loads_no_library_it_must_do_without(module: str, forbidden: set[str]):
    # A fresh interpreter: here, other tests have imported everything already. The contracts see
    # the code's own imports only; this sees what libraries drag in as well.
    outcome = _run("-c", f"import sys, {module}; print(*sorted({forbidden!r} & set(sys.modules)))")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.split() == []


def test_no_module_is_longer_than_400_lines():
    assert _names([path for path in MODULES if _lines(path) > 400]) == []


def test_half_of_the_modules_are_at_most_150_lines_long():
    assert sorted(map(_lines, MODULES))[len(MODULES) // 2] <= 150


def test_folders_are_at_most_two_deep():
    assert _names([path for path in MODULES if len(path.relative_to(ROOT).parts) > 3]) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed(package: str):
    assert (ROOT / package / "py.typed").is_file()


def test_each_module_has_a_test_file_of_its_name():
    def is_tested(path: Path) -> bool:
        package = path.relative_to(ROOT).parts[0]
        return any((ROOT / "tests" / package).rglob(f"test_{path.stem}.py"))

    substantial = [path for path in MODULES if not path.stem.startswith("__") and _lines(path) >= 20]
    assert _names([path for path in substantial if not is_tested(path)]) == []


def test_test_folders_have_no_init():
    # With one, pytest would import tests/training as the package `training` and hide the real one.
    assert _names(list((ROOT / "tests").rglob("__init__.py"))) == []
