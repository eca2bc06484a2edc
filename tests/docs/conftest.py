"""A model of the digits, trained for a few epochs by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dubio.training.cli.main import main
from tests.docs.blocks import ROOT


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/digits_mlp/model.ckpt`, as the README's command leaves it; for reading only."""
    folder = tmp_path_factory.mktemp("documented")
    config = str(ROOT / "configs" / "digits_mlp.yaml")
    quick = ["--trainer.max_epochs", "3", "--trainer.enable_progress_bar", "false"]
    main(["fit", "--config", config, "--runs", str(folder / "runs"), *quick])
    return folder
