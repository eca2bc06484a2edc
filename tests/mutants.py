"""Change the code in small ways, one at a time, and see whether the tests of that file notice.

    python tests/mutants.py                                   every mutant of every file below: hours
    python tests/mutants.py --sample 100                      a random hundred of them
    python tests/mutants.py uncertainty/detection/conformal.py

mutmut makes and runs the mutants, on a copy under build/mutants/. Each source file is run with its own tests alone,
so that a mutant takes seconds. Exit code 1 if one survives.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from mutmut.mutation.file_mutation import mutate_file_contents

ROOT = Path(__file__).resolve().parent.parent
STAGES = ROOT / "build" / "mutants"
PACKAGES = ("models", "scale", "serving", "training", "uncertainty")
FOLDERS = ("uncertainty/execution", "uncertainty/dropout", "models/checkpoint")
FILES = (
    "uncertainty/committee.py",
    "models/loading.py",
    "training/calibration.py",
    "uncertainty/detection/conformal.py",
    "serving/batching.py",
    "serving/repository/reconciler.py",
)
# Tests of a file beside tests/<folder>/test_<file>*.py.
MORE_TESTS = {
    "uncertainty/committee.py": ["tests/uncertainty/test_isolation.py", "tests/uncertainty/test_report.py"],
    "uncertainty/dropout/function_mode.py": [
        "tests/uncertainty/dropout/test_attention.py",
        "tests/uncertainty/dropout/test_recurrent.py",
    ],
    "serving/repository/reconciler.py": ["tests/serving/repository/test_repository.py"],
}
NOTICED = {"killed", "timeout", "segfault", "suspicious"}


def targets() -> list[str]:
    """The files that are mutated when none is named."""
    modules = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py")) if path.stem != "__init__"]
    return [*FILES, *(path.relative_to(ROOT).as_posix() for path in modules)]


def own_tests(file: str) -> list[str]:
    """The test files of a source file."""
    path = Path(file)
    mirrored = sorted((ROOT / "tests" / path.parent).glob(f"test_{path.stem}*.py"))
    if not mirrored:
        sys.exit(f"'{file}' has no tests/{path.parent}/test_{path.stem}.py.")
    return [test.relative_to(ROOT).as_posix() for test in mirrored] + MORE_TESTS.get(file, [])


def prepare(file: str) -> Path:
    """A folder in which mutmut sees the repository, mutates `file` alone and runs its tests alone."""
    stage = STAGES / file.removesuffix(".py").replace("/", ".")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    for name in ("dubio", "tests", "configs", "docs", "examples"):
        (stage / name).symlink_to(ROOT / name)
    settings = {
        # The links under dubio/ become folders there, so that a module's path is its name.
        "source_paths": ["dubio/__init__.py", *(f"dubio/{package}" for package in PACKAGES)],
        "only_mutate": [f"dubio/{file}"],
        "also_copy": ["configs", "docs", "examples"],
        "pytest_add_cli_args_test_selection": own_tests(file),
        "pytest_add_cli_args": ["-m", "not slow", "-p", "no:cacheprovider"],
        # Wording is not behaviour: tests look at what a message names.
        "do_not_mutate_patterns": [r"^\s*raise \w+\(f?[\"']", r"^\s*f?[\"']"],
        "process_isolation": "forkserver",  # torch starts threads
        "use_git_change_detection": False,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]  # JSON's lists and strings are TOML's
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (stage / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]), encoding="utf-8")
    return stage


def mutants_of(file: str, stage: Path) -> list[str]:
    """The names of all mutants of a file."""
    with contextlib.chdir(stage):  # mutmut reads its settings where it is
        mutated = mutate_file_contents(f"dubio/{file}", (ROOT / file).read_text(encoding="utf-8"))
    module = f"dubio.{file.removesuffix('.py').replace('/', '.')}"
    return [f"{module}.{name}" for name in mutated.mutant_names]


def mutmut(stage: Path, *arguments: str) -> str:
    """Run a command of mutmut; returns what it wrote."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "mutmut", *arguments]
    ran = subprocess.run(command, cwd=stage, env=environment, capture_output=True, text=True)
    if ran.returncode:
        written = re.sub(r"[^\r\n]*\r", "", ran.stdout)
        sys.exit(f"mutmut {arguments[0]} failed in {stage}:\n{written[-4000:]}\n{ran.stderr[-2000:]}")
    return ran.stdout


def run(stage: Path, names: list[str]) -> dict[str, str]:
    """What became of each of the mutants named."""
    mutmut(stage, "run", *names)
    listed = re.findall(r"^\s+(\S+__mutmut_\d+): (.+)$", mutmut(stage, "results", "--all", "true"), flags=re.MULTILINE)
    return {name: status for name, status in listed if name in set(names)}


def main() -> int:
    """Run the mutants that were asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="source files, as seen from the repository's top (default: the list)")
    parser.add_argument("--sample", type=int, help="how many mutants to draw (default: all)")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="of the draw (default: another each time)"
    )
    arguments = parser.parse_args()

    stages = {file: prepare(file) for file in arguments.files or targets()}
    drawn = [(file, name) for file, stage in stages.items() for name in mutants_of(file, stage)]
    if arguments.sample is not None and arguments.sample < len(drawn):
        print(f"{arguments.sample} of {len(drawn)} mutants, seed {arguments.seed}")
        drawn = random.Random(arguments.seed).sample(drawn, arguments.sample)

    totals: Counter[str] = Counter()
    for file, stage in stages.items():
        names = [name for owner, name in drawn if owner == file]
        if not names:
            continue
        became = run(stage, names)
        counts = Counter("killed" if status in NOTICED else status for status in became.values())
        totals += counts
        print(f"{file}: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}", flush=True)
        for name in (name for name, status in became.items() if status not in NOTICED):
            print(f"\n{became[name]}: {mutmut(stage, 'show', name)}", flush=True)
    print(f"{totals['killed']} of {totals.total()} killed")
    return int(totals["killed"] < totals.total())


if __name__ == "__main__":
    sys.exit(main())
