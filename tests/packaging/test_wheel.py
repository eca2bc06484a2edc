"""The wheel alone, in an environment of its own: from nothing to a service that answers."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import httpx
import pytest

from dubio.training import Digits
from tests.packaging.conftest import Built, call, serving

pytestmark = pytest.mark.slow


@pytest.fixture
def scripts(built: Built, tmp_path: Path) -> Path:
    """The commands of an environment in which `dubio` comes from the wheel, and its requirements from this one."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=os.name != "nt")
    paths = {"base": str(folder), "platbase": str(folder)}
    scripts, packages = Path(sysconfig.get_path("scripts", vars=paths)), Path(sysconfig.get_path("purelib", vars=paths))
    pip = [sys.executable, "-m", "pip", "--python", str(scripts / "python"), "install", "--quiet"]
    subprocess.run(
        [*pip, "--no-deps", "--no-index", "--disable-pip-version-check", str(built.wheel)],
        check=True,
        timeout=120,
    )
    # A path in a .pth file is searched, but .pth files that lie there are not read: no checkout is found through it.
    (packages / "requirements.pth").write_text(sysconfig.get_path("purelib"))
    return scripts


def test_the_wheel_alone_is_enough_to_begin(scripts: Path, tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()

    def run(command: str, *arguments: str) -> str:
        ran = call(str(scripts / command), *arguments, cwd=home)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    assert Path(run("python", "-c", "import dubio; print(dubio.__file__)")).is_relative_to(scripts.parent)
    for name in ("models", "scale", "serving", "training", "uncertainty"):
        assert f"No module named '{name}'" in call(str(scripts / "python"), "-c", f"import {name}", cwd=home).stderr

    assert "digits_mlp" in run("dubio-train", "configs")
    run("dubio-train", "configs", "digits_convnet")
    assert (home / "digits_convnet.yaml").is_file()
    few = ["--trainer.max_epochs", "3", "--trainer.enable_progress_bar", "false", "--calibration.num_samples", "8"]
    assert "next: dubio-serve runs/digits_mlp/model.ckpt" in run("dubio-train", "fit", "--config", "digits_mlp", *few)

    images, labels = Digits().raw("test")
    with serving(str(scripts / "dubio-serve"), "runs/digits_mlp/model.ckpt", "--port", "0", cwd=home) as url:
        answer = httpx.post(f"{url}/v1/predict", json={"instances": images.tolist()}, timeout=60).json()
        assert httpx.get(url).status_code == 200  # the page, whose files are in the wheel too
    right = [int(each["mc"]["label"]) == int(due) for each, due in zip(answer["predictions"], labels, strict=True)]
    assert sum(right) > 0.8 * len(right)
