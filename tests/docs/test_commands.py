"""Every command and every program in the documentation runs as it is printed."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.docs.blocks import PAGES, ROOT, Block, Workspace, blocks

# What needs something from outside, by page and first line, and why.
NOT_RUN = {
    ("README.md", "make demo    # builds"): "make demo is run by test_the_demo; make test would run itself",
    (
        "README.md",
        ".venv/bin/dubio-train calibrate --config mine.yaml",
    ): "the files of docs/training.md: test_training.py",
    ("CONTRIBUTING.md", "make test     # builds"): "they build an environment, run all tests and rewrite the code",
    ("CONTRIBUTING.md", "make mutants"): "it runs tests for minutes: tests/docs/test_mutants.py",
    ("RELEASING.md", ""): "a release: it builds, tags and uploads",
    ("docs/training.md", ""): "test_training.py runs the page in a folder of its own",
    ("docs/review.md", ""): "test_review.py runs the page",
    ("docs/grpc.md", ""): "test_grpc.py runs the page",
    ("docs/foreign.md", ""): "test_foreign.py runs the page in a folder of its own",
    ("docs/operations.md", "DUBIO_API_KEYS="): "docker",
    ("docs/kubernetes.md", ""): "a cluster; tests/deploy/ runs what can be run without one",
    ("docs/ray_serve.md", ""): "a cluster of Ray: tests/scale/test_ray_serve.py",
    ("docs/monitoring.md", "docker compose --profile monitoring"): "docker",
    ("docs/monitoring.md", "curl http://127.0.0.1:8000/v2/health/live"): "docker",
    ("docs/monitoring.md", "docker compose --profile store"): "docker",
}

KEY = "k" * 32
TUMOURS = "\n".join(
    line.removeprefix("#   ")
    for config in ("table_mlp", "text_cnn")
    for line in (ROOT / "configs" / f"{config}.yaml").read_text(encoding="utf-8").splitlines()
    if line.startswith("#   python -c")
)
NETWORK = """
import torch
from dubio import Committee
x = torch.rand(5, 1, 8, 8) * 16
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Dropout(0.5),
                              torch.nn.Linear(32, 10)).eval()
example = example_input = x[:1]
"""
# What a block takes for granted: the reader's own network, files or keys.
BEFORE = {
    ("README.md", "from dubio import load"): "import torch; x = torch.rand(5, 1, 8, 8) * 16\n",
    ("README.md", "from dubio import Committee"): NETWORK,
    ("docs/engine.md", "committee = Committee("): NETWORK + "import dubio\n",
    ("docs/data.md", "dubio-train fit --config table_mlp"): TUMOURS + "\n",
    ("docs/data.md", "dubio-train fit --config image_folder_convnet"): "python pictures.py\n",
}
PICTURES = """
import pathlib, numpy as np, PIL.Image as image
draws = np.random.default_rng(0)
for label, name in enumerate(["left", "right"]):
    folder = pathlib.Path("images", name)
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(300):
        pixels = draws.integers(0, 100, (32, 32, 3), dtype=np.uint8)
        pixels[:, 16 * label : 16 * label + 16] += 100
        image.fromarray(pixels).save(folder / f"{row}.png")
"""


def _look_up(table: dict[tuple[str, str], str], block: Block) -> str | None:
    return next(
        (text for (page, start), text in table.items() if page == block.page and block.text.startswith(start)), None
    )


def _programs(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.language in ("bash", "python") and not _look_up(NOT_RUN, block)]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path)
    yield workspace
    workspace.stop()


@pytest.mark.parametrize("page", PAGES)
def test_each_block_says_what_it_is(page: str):
    """A command hides from these tests in a block without a language."""
    for block in blocks(page):
        commands = re.findall(
            r"^(?:\.venv/bin/)?(?:make|python|pip|curl|docker|dubio-\w+|git) .*", block.text, re.MULTILINE
        )
        assert block.language == "bash" or commands == [], block.first_line
        if block.language == "python":
            compile(block.text, page, "exec")
        if block.language == "bash":
            subprocess.run(["bash", "-n", "-c", block.text], check=True)


@pytest.mark.parametrize(("page", "start"), [*NOT_RUN, *BEFORE])
def test_what_is_said_of_a_block_is_said_of_one_that_exists(page: str, start: str):
    assert [block for block in blocks(page) if block.text.startswith(start)]


def _same_shape(answer: Any, printed: Any) -> None:
    """Keys, types and labels agree; "..." stands for what was left out of a list."""
    if isinstance(printed, dict):
        assert list(answer) == list(printed)
        for name, value in printed.items():
            _same_shape(answer[name], value)
    elif isinstance(printed, list) and "..." in printed:
        assert len(answer) > len(printed) - 1
        _same_shape(answer[0], printed[0])
    elif isinstance(printed, list):
        assert len(answer) == len(printed)
        for value, expected in zip(answer, printed, strict=True):
            _same_shape(value, expected)
    elif isinstance(printed, float):
        assert isinstance(answer, float)
        assert answer == pytest.approx(printed, abs=0.1)
    else:
        assert answer == printed


def _pixels(workspace: Workspace) -> None:
    """A model of the name and the input of Fashion-MNIST's, which would take a quarter of an hour to train."""
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 2, 700)
    images = draws.integers(0, 100, (700, 28, 28), dtype=np.uint8) + (labels * 100).astype(np.uint8)[:, None, None]
    images[0, 0, 0], images[1, 0, 0] = 0, 255
    np.savez(workspace.folder / "pixels.npz", x=images, y=labels)
    command = "dubio-train fit --config configs/arrays_mlp.yaml --data.path pixels.npz --trainer.max_epochs 2"
    workspace.run(Block("", "bash", f"{command} --name fashion_mnist_convnet"))


@pytest.mark.slow
def test_the_readme_runs_as_printed(workspace: Workspace):
    """Train once, serve once, ask; then its programs."""
    _pixels(workspace)
    page = blocks("README.md")
    printed = {
        block.text: json.loads(behind.text) for block, behind in itertools.pairwise(page) if behind.language == "json"
    }
    compared = 0
    for block in _programs("README.md"):
        if "fashion_mnist_convnet/predict" in block.text:
            workspace.run(
                Block(
                    "",
                    "bash",
                    "dubio-serve digits_mlp=runs/digits_mlp/model.ckpt runs/fashion_mnist_convnet/model.ckpt",
                )
            )
        answer = workspace.run(block, _look_up(BEFORE, block) or "")
        if block.text in printed:
            _same_shape(json.loads(answer), printed[block.text])
            compared += 1
    assert compared == len(printed) == 1


@pytest.mark.slow
def test_the_demo_runs_as_printed(workspace: Workspace):
    demo = subprocess.Popen(
        ["make", "demo"],
        cwd=workspace.folder,
        env=workspace.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    printed = []
    with demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            printed.append(line)
            if "inverted 9" in line:
                break
        subprocess.run(["kill", "-INT", "--", f"-{demo.pid}"], check=True)  # Ctrl-C, as a terminal sends it
        assert demo.wait(60) in (0, -signal.SIGINT), "".join(printed)
    rows = [line for line in printed if re.match(r"\s(?:digit \d|photograph|uniform noise|inverted 9)\s", line)]
    assert len(rows) == 10
    flags = [line.split()[-2] for line in rows]  # the last column says whether the answer is accepted
    assert flags == ["no"] * 5 + ["unfamiliar"] * 5
    assert all(line.split()[-1] == "no" for line in rows[5:])


@pytest.mark.slow
def test_the_page_on_data_runs_as_printed(workspace: Workspace):
    (workspace.folder / "pictures.py").write_text(PICTURES)
    for block in _programs("docs/data.md"):
        answer = workspace.run(block, _look_up(BEFORE, block) or "")
        if "request.json" in block.text:
            assert json.loads(answer.splitlines()[-1])["model"]["name"] == "table_mlp"


def _quick(workspace: Workspace) -> None:
    workspace.run(Block("", "bash", "dubio-train fit --config configs/digits_mlp.yaml --trainer.max_epochs 3"))


@pytest.mark.slow
def test_the_page_on_operations_runs_as_printed(workspace: Workspace):
    _quick(workspace)
    served = workspace.folder / "served" / "digits" / "1"
    served.mkdir(parents=True)
    (workspace.folder / "runs" / "digits_mlp" / "model.ckpt").rename(served / "model.ckpt")
    (workspace.folder / "keys.txt").write_text(f"infer,admin:{KEY}\n")
    (workspace.folder / "keys.txt").chmod(0o600)
    workspace.variables["KEY"] = KEY
    answers = [workspace.run(block) for block in _programs("docs/operations.md")]
    assert len(answers) == 2
    assert '"name":"digits"' in answers[0].replace(" ", "")


@pytest.mark.slow
def test_the_page_on_monitoring_runs_as_printed(workspace: Workspace):
    _quick(workspace)
    (workspace.folder / "keys.txt").write_text(f"infer,admin,metrics:{KEY}\n")
    (workspace.folder / "keys.txt").chmod(0o600)
    workspace.variables["KEY"] = KEY
    workspace.run(Block("", "bash", "dubio-serve digits=runs/digits_mlp/model.ckpt --api-keys-file keys.txt\n"))
    flagged, index, refused = [workspace.run(block) for block in _programs("docs/monitoring.md")]
    assert '"flagged":true' in flagged
    assert '"squared_distance"' in flagged
    assert json.loads(index) == [{"name": "digits", "version": "1", "state": "READY", "reason": ""}]
    assert all(line.startswith("# ") for line in refused.splitlines())  # nothing was


@pytest.mark.slow
def test_the_page_on_the_engine_runs_as_printed(workspace: Workspace):
    _quick(workspace)
    (workspace.folder / "runs" / "digits_mlp" / "model.ckpt").rename(workspace.folder / "model.ckpt")
    programs = _programs("docs/engine.md")
    assert len(programs) == 1
    for block in programs:
        workspace.run(block, _look_up(BEFORE, block) or "")


@pytest.mark.slow
def test_the_page_on_python_runs_as_printed(workspace: Workspace):
    fit = "dubio-train fit --config configs/table_mlp.yaml --data.path tumours.csv --data.target diagnosis"
    workspace.run(Block("", "bash", f"{TUMOURS}\n{fit} --trainer.max_epochs 10\n"))
    answers = [workspace.run(block) for block in _programs("docs/python.md")]
    assert len(answers) == 4
    assert "mean radius" in answers[0]
    assert answers[1].startswith("(1, 2) (1, 2) (1, 2)")
    assert re.fullmatch(r"569 \d\S* None\n", answers[2])  # the rows are those of the training, so that nothing drifts
    assert answers[3].startswith("Committee(Sequential, num_samples=32, seed=0, strategy=")


@pytest.mark.slow
def test_the_page_on_scoring_runs_as_printed(workspace: Workspace):
    fit = "dubio-train fit --config configs/table_mlp.yaml --data.path tumours.csv --data.target diagnosis"
    (new,) = (line for line in (ROOT / "docs" / "data.md").read_text().splitlines() if "write_csv('new.csv')" in line)
    workspace.run(Block("", "bash", f"{TUMOURS}\n{fit} --trainer.max_epochs 10\n{new}\n"))
    answers = [workspace.run(block) for block in _programs("docs/scoring.md")]
    assert len(answers) == 2
    assert re.fullmatch(r"\[549 550 551\] \['\w+' '\w+' '\w+'\] \[.+\] \[None None None\]\n", answers[1])


def test_each_page_with_programs_has_a_test():
    run: dict[str, Callable[..., None]] = {
        "README.md": test_the_readme_runs_as_printed,
        "docs/data.md": test_the_page_on_data_runs_as_printed,
        "docs/operations.md": test_the_page_on_operations_runs_as_printed,
        "docs/monitoring.md": test_the_page_on_monitoring_runs_as_printed,
        "docs/engine.md": test_the_page_on_the_engine_runs_as_printed,
        "docs/python.md": test_the_page_on_python_runs_as_printed,
        "docs/scoring.md": test_the_page_on_scoring_runs_as_printed,
    }
    assert {page for page in PAGES if _programs(page)} == set(run)
